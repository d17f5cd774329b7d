//! Where a host is, as far as its name tells. Nothing is resolved: a public name may still point to a private address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere on the internet, by its name.
    Public,
    /// Inside: this machine, this network, this cluster, a cloud's metadata service; or an address that is nobody's.
    Private,
}

/// Domains that mean something inside only, or lead there, with every name below them; each with who says so. Names whose last label is
/// no top-level domain are inside in any case: `kubernetes.default`, `10-0-0-1.serving.pod`, `db.corp`.
pub const PRIVATE_DOMAINS: &[(&str, &str)] = &[
    ("1u.ms", "answers with any address that is asked for"),
    ("api.metadata.cloud.ibm.com", "IBM Cloud: the metadata service"),
    ("arpa", "RFC 3172: infrastructure, with home.arpa (RFC 8375) and ipv4only.arpa (RFC 8880)"),
    ("internal", "ICANN 2024-07-29; the metadata services of Google, AWS and Azure"),
    ("internal.cloudapp.net", "Azure: hosts of a virtual network"),
    ("lacolhost.com", "leads to 127.0.0.1"),
    ("local", "RFC 6762; the cluster domain of most clusters"),
    ("localhost", "RFC 6761"),
    ("localhost.run", "tunnels to machines of anybody's"),
    ("localtest.me", "leads to 127.0.0.1"),
    ("lvh.me", "leads to 127.0.0.1"),
    ("metadata.goog", "Google Cloud: the metadata service"),
    ("metadata.packet.net", "Equinix Metal: the metadata service"),
    ("metadata.platformequinix.com", "Equinix Metal: the metadata service"),
    ("metadata.tencentyun.com", "Tencent Cloud: the metadata service"),
    ("nip.io", "answers with the address that its name holds"),
    ("oraclevcn.com", "Oracle Cloud: hosts of a virtual network"),
    ("rbndr.us", "answers with another address the second time"),
    ("sslip.io", "answers with the address that its name holds"),
    ("traefik.me", "answers with the address that its name holds"),
    ("ts.net", "Tailscale: hosts of a private network"),
    ("vcap.me", "leads to 127.0.0.1"),
    ("xip.io", "answers with the address that its name holds"),
];

impl Reach {
    /// Of a host in lower case, an IPv6 address without brackets.
    pub fn of_host(host: &str) -> Self {
        let private = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => is_private_v4(address),
            Ok(IpAddr::V6(address)) => is_private_v6(address),
            Err(_) => is_private_name(host),
        };
        if private { Self::Private } else { Self::Public }
    }
}

fn is_private_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    // A pod looks up a name with few dots in its search path first, where it may be a Service: one without a dot is only looked up there,
    // and one whose end is no top-level domain is nobody's elsewhere.
    let Some((_, last)) = host.rsplit_once('.') else { return true };
    // The cluster's domain may be any: what stands below it does not change.
    let in_a_cluster = host.split('.').skip(2).any(|label| matches!(label, "svc" | "pod"));
    in_a_cluster || !tld::exist(last) || PRIVATE_DOMAINS.iter().any(|(domain, _)| is_within(host, domain))
}

/// Whether a host is a domain, or below it.
pub fn is_within(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// IANA's special-purpose registry: whatever is not globally reachable. And one that looks so: Azure's host answers every machine of its
/// there, with certificates and secrets of extensions.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || address == Ipv4Addr::new(168, 63, 129, 16)
        || matches!(
            (a, b, c),
            (0 | 240..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
        )
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Unspecified, loopback, and IPv4 in its old and its mapped form.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high == 0 && low <= 1) || embedded(high, low),
        // NAT64 and 6to4 lead to an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Documentation is at two places (RFC 3849, RFC 9637).
        [0x64, 0xff9b, ..] | [0x100, 0, 0, 0 | 1, ..] | [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            true
        }
        // Segment routing (RFC 9602), and what is local to a site, a link or a group.
        [first, ..] => matches!(first, 0x5f00 | 0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00..=0xffff | 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_and_outside_are_told_apart() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "localhost",
            "a.localhost",
            "minio",
            "metadata.google.internal",
            "s3.storage.svc",
            "s3.storage.svc.cluster.local",
            "printer.local",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "100.100.100.200",
            "169.254.170.2",
            "fd00:ec2::254",
            "3fff:1::1",
            "5f00::1",
            "kubernetes.default",
            "prometheus.monitoring",
            "web-0.nginx.default",
            "10-0-0-1.serving.pod",
            "s3.storage.svc.corp.example.com",
            "metadata.goog",
            "metadata.tencentyun.com",
            "localhost6.localdomain6",
            "db.corp",
            "ipv4only.arpa",
            "127.0.0.1.nip.io",
            "kubernetes.default.",
        ] {
            assert_eq!(Reach::of_host(host), Reach::Private, "{host}");
        }
        assert!(PRIVATE_DOMAINS.is_sorted());
        for host in [
            "example.com",
            "8.8.8.8",
            "172.32.0.1",
            "100.63.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "mylocal.example.org",
            "internal.example.com",
            "metadata.example.com",
            "svc.example.com",
            "images.example.dev",
            "bucket.s3.eu-central-1.amazonaws.com",
            "xn--bcher-kva.example.de",
            "notnip.io",
        ] {
            assert_eq!(Reach::of_host(host), Reach::Public, "{host}");
        }
    }
}

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

/// Names that mean something inside only, with every name below them.
const PRIVATE_SUFFIXES: [&str; 9] =
    ["localhost", "local", "internal", "intranet", "lan", "home.arpa", "svc", "cluster.local", "localdomain"];

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
    // A name without a dot is looked up in the search path of the model server's pod.
    !host.contains('.')
        || PRIVATE_SUFFIXES
            .iter()
            .any(|suffix| host.strip_suffix(suffix).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// IANA's special-purpose registry: whatever is not globally reachable.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
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
        [0x64, 0xff9b, ..] | [0x100, 0, 0, 0, ..] | [0x2001, 0..=0x1ff | 0xdb8, ..] => true,
        [first, ..] => matches!(first, 0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00..=0xffff | 0),
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
        ] {
            assert_eq!(Reach::of_host(host), Reach::Private, "{host}");
        }
        for host in [
            "example.com",
            "8.8.8.8",
            "172.32.0.1",
            "100.63.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "mylocal.example",
            "internal.example.com",
        ] {
            assert_eq!(Reach::of_host(host), Reach::Public, "{host}");
        }
    }
}

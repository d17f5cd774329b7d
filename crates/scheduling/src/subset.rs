//! The endpoints that a gateway allows.

use std::net::{IpAddr, SocketAddr};

/// Addresses that a gateway allows: `ip:port`, or `ip` for each port of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Subset {
    addresses: Vec<SocketAddr>,
    hosts: Vec<IpAddr>,
}

impl Subset {
    /// Reads items such as `10.0.0.1:8000`, `[fd00::1]:8000` or `10.0.0.1`; each may be a comma-separated list. What is no address
    /// allows nothing, so that a list of only such items is an empty one.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut subset = Self::default();
        for item in items.into_iter().flat_map(|item| item.split(',')).map(str::trim) {
            if let Ok(address) = item.parse() {
                subset.addresses.push(address);
            } else if let Ok(host) = item.trim_start_matches('[').trim_end_matches(']').parse() {
                subset.hosts.push(host);
            }
        }
        subset
    }

    pub fn allows(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address) || self.hosts.contains(&address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_is_read_in_every_spelling() {
        let subset = Subset::parse(["10.0.0.1:2, [fd00::1]:8000", "10.0.0.9", "nonsense"]);
        assert!(subset.allows("10.0.0.1:2".parse().unwrap()));
        assert!(!subset.allows("10.0.0.1:3".parse().unwrap()));
        assert!(subset.allows("10.0.0.9:1234".parse().unwrap()));
        assert!(subset.allows("[fd00::1]:8000".parse().unwrap()));
        assert!(!Subset::parse(["nonsense"]).allows("10.0.0.1:2".parse().unwrap()));
    }
}

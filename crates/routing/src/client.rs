//! Who a client is, as far as its address tells.

use std::net::IpAddr;

/// A client by its address, for whoever shares something out among clients: with IPv6 one has as many addresses as it likes in its network
/// of 64 bits (RFC 6177).
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |address: &str| client_of(address.parse().unwrap()).to_string();
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(client("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(client("10.0.0.1"), "10.0.0.1");
    }
}

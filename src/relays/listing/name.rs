//! The name that a list is asked for.

use std::net::IpAddr;

/// The name of an address in a zone, absolute: RFC 5782, 2.1 (the four bytes in decimal, the last one first) and 2.4 (the 32
/// halves of bytes in hexadecimal, the last one first). An IPv4 address within IPv6 is asked for as IPv4.
pub fn of(address: IpAddr, zone: &str) -> String {
    let labels: Vec<String> = match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(v6) => {
            let halves = |byte: &u8| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)];
            v6.octets().iter().rev().flat_map(halves).collect()
        }
    };
    format!("{}.{}.", labels.join("."), zone.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn names_are_those_of_the_rfc() {
        // The examples of RFC 5782, 2.1 and 2.4.
        assert_eq!(of("192.0.2.99".parse().unwrap(), "bad.example.com"), "99.2.0.192.bad.example.com.");
        assert_eq!(
            of("2001:db8:1:2:3:4:567:89ab".parse().unwrap(), "ugly.example.com"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com."
        );
        assert_eq!(of("::ffff:192.0.2.99".parse().unwrap(), "bad.example.com."), "99.2.0.192.bad.example.com.");
    }
}

//! How two prefixes relate.

use ipnet::IpNet;

/// Whether two prefixes have an address in common: one contains the other then.
#[must_use]
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether a prefix is one of IPv4.
#[must_use]
pub fn is_v4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}

#[cfg(test)]
mod tests {
    use super::{is_v4, overlap};

    #[test]
    fn prefixes_overlap_where_one_contains_the_other() {
        for (a, b, expected) in [
            ("198.18.0.0/16", "198.18.0.0/16", true),
            ("198.18.0.0/16", "198.18.7.0/24", true),
            ("198.18.7.7/32", "198.18.0.0/16", true),
            ("198.18.0.0/24", "198.18.1.0/24", false),
            ("0.0.0.0/0", "198.18.0.0/16", true),
            ("::/0", "198.18.0.0/16", false),
            ("fd00:18::/32", "fd00:18:1::/48", true),
        ] {
            let (a, b) = (a.parse().expect("a prefix"), b.parse().expect("a prefix"));
            assert_eq!((overlap(&a, &b), overlap(&b, &a)), (expected, expected), "{a} {b}");
        }
        assert!(is_v4(&"198.18.0.0/16".parse().expect("a prefix")));
        assert!(!is_v4(&"::/0".parse().expect("a prefix")));
    }
}

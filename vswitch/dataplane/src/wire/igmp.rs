//! IGMP (RFC 3376), as far as a multicast router's messages are told from its members'.
//!
//! | bytes | field |
//! |---|---|
//! | 0    | type |
//! | 1    | response time, reserved |
//! | 2..4 | checksum over the whole message |
//! | 4..8 | group |

/// Bytes of the shortest message.
pub const HEADER_LEN: usize = 8;

/// Type: membership query, of any version.
pub const QUERY: u8 = 0x11;
/// Type: advertisement of a multicast router (RFC 4286).
pub const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 0x30;

//! Headers as they are on the wire, one file each, all of one shape.
//!
//! Enters: bytes of a packet, from any sender: pods and the underlay are not trusted. Leaves: typed
//! values to read, edited bytes, or [`Malformed`]. The walk, the reply builders, the trace and the
//! tests call in here; nothing in here calls out, allocates or panics.
//!
//! In each file:
//! - a *view* (`Ipv4`, `Udp`, ...) borrows the packet. Its `parse` does all the checking, so that
//!   reading a field afterwards is one load from an array whose length the compiler knows;
//! - a *`Repr`* holds the fields by value. Its `emit` writes every byte of the header;
//! - free functions edit a header in place, and keep a header's own checksum true.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod mss;
pub mod ndp;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use arp::Arp;
pub use ethernet::{EtherType, Ethernet, MacAddr};
pub use icmpv4::Icmpv4;
pub use icmpv6::Icmpv6;
pub use ip::{Ecn, Protocol};
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use ndp::{Advertisement, Solicitation};
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;
pub use vxlan::{Vni, Vxlan};

/// Why bytes are not the header that they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// There are fewer bytes than the shortest such header has.
    Truncated,
    /// The version field names another protocol.
    Version,
    /// The header length field is below the minimum or beyond the bytes.
    HeaderLength,
    /// The length field of the whole contradicts the header or the bytes.
    TotalLength,
    /// A type, operation or code that is not supported here.
    Unsupported,
    /// A flag that must be set is not.
    Flags,
    /// IPv6 extension headers are too many, out of place or cut off.
    Extensions,
    /// Options are too many, of length zero or cut off.
    Options,
    /// An address that must not stand where it stands.
    Address,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the bytes end before the header does",
            Self::Version => "the version is another protocol's",
            Self::HeaderLength => "the header length is too small or beyond the bytes",
            Self::TotalLength => "the total length contradicts the header or the bytes",
            Self::Unsupported => "the type or operation is not supported",
            Self::Flags => "a mandatory flag is not set",
            Self::Extensions => "the extension headers are too many, misplaced or cut off",
            Self::Options => "the options are too many, empty or cut off",
            Self::Address => "an address is not allowed in its place",
        })
    }
}

impl core::error::Error for Malformed {}

/// The `N` bytes from `at` on, if the packet has them.
#[inline]
#[must_use]
pub fn header<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// The `N` bytes from `at` on, to be edited, if the packet has them.
#[inline]
#[must_use]
pub fn header_mut<const N: usize>(bytes: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

/// `LEN` bytes of a header from `AT` on; a field that is not inside does not compile.
#[inline(always)]
fn field<const AT: usize, const LEN: usize, const N: usize>(header: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N) };
    // The assertion makes `None` impossible, and the compiler drops that arm.
    match header.get(AT..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => [0; LEN],
    }
}

/// Stores a field of a header at `AT`; a field that is not inside does not compile.
#[inline(always)]
fn put<const AT: usize, const LEN: usize, const N: usize>(header: &mut [u8; N], value: [u8; LEN]) {
    const { assert!(AT + LEN <= N) };
    if let Some(bytes) = header.get_mut(AT..).and_then(<[u8]>::first_chunk_mut) {
        *bytes = value;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod testing {
    //! What the tests of all header files share.

    /// A byte that no field of the literal frames has: a byte that `emit` forgot shows.
    pub(super) const POISON: u8 = 0xa5;

    /// Asserts that `parse` accepts `valid` and refuses everything shorter.
    pub(super) fn refuses_truncation<'a, T>(
        valid: &'a [u8],
        parse: impl Fn(&'a [u8]) -> Result<T, super::Malformed>,
    ) {
        assert!(parse(valid).is_ok(), "the whole is valid");
        for len in 0..valid.len() {
            assert!(parse(&valid[..len]).is_err(), "accepted the first {len} bytes");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{header, header_mut};

    #[test]
    fn a_header_lies_wholly_inside() {
        let mut bytes = [1, 2, 3];
        assert_eq!(header::<2>(&bytes, 1), Some(&[2, 3]));
        assert_eq!(header::<2>(&bytes, 2), None);
        assert_eq!(header::<2>(&bytes, usize::MAX), None);
        *header_mut::<1>(&mut bytes, 2).unwrap() = [9];
        assert_eq!(bytes, [1, 2, 9]);
    }
}

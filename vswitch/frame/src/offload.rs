//! What a sender with offloads left undone, carried beside the packet until its way out is known.
//!
//! Enters: decoded by `netio` from the virtio header of a TAP. Leaves: encoded there again, or
//! worked off by `dataplane` for a port without offloads. Offsets count from the packet's first
//! byte. The words are those of the virtio specification 1.2, section 5.1.6.

/// Offload state of one packet. The default is a plain packet whose checksums are complete but
/// unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// State of the innermost transport checksum.
    pub checksum: Checksum,
    /// Set for a superframe: it must be cut before it reaches a wire.
    pub gso: Option<Gso>,
}

/// State of the innermost transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// In the packet, and nobody has checked it.
    #[default]
    Unchecked,
    /// Checked by the sender of the packet to us; the receiver need not check again.
    Valid,
    /// The field holds the sum of the pseudo header alone; the sum of everything from `start` must
    /// still be folded into it.
    Partial {
        /// Where the sum begins: the transport header.
        start: u16,
        /// Where the sum is stored, counted from `start`.
        offset: u16,
    },
}

/// How to cut a superframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Which protocol is cut.
    pub kind: GsoKind,
    /// Bytes of transport payload in each piece; the last may be shorter.
    pub size: u16,
    /// Bytes of all headers, as the sender counted them: a hint, to be checked against the packet.
    pub header_len: u16,
    /// Set for a superframe that leaves inside VXLAN: its pieces get outer headers of their own.
    pub vxlan: Option<VxlanOver>,
}

/// What the outer headers of a VXLAN packet are: an IP header without options or extensions, UDP and
/// VXLAN, in front of a frame whose Ethernet header has no VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VxlanOver {
    /// IPv4, with a UDP checksum of zero.
    Ipv4,
    /// IPv6, with the sum of the pseudo header in the UDP checksum's place: each piece's is made of it.
    Ipv6,
}

/// The protocol of a superframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4; `ecn` if the packet carries CWR, which only the first piece may keep
    /// (RFC 3168, section 6.1.2).
    Tcp4 {
        /// CWR handling is asked for.
        ecn: bool,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// CWR handling is asked for.
        ecn: bool,
    },
    /// UDP over either: each piece is a datagram of its own (USO).
    Udp,
}

impl Offload {
    /// Whether somebody still has to finish the checksum or to cut the packet.
    #[must_use]
    #[inline]
    pub fn is_undone(&self) -> bool {
        self.gso.is_some() || matches!(self.checksum, Checksum::Partial { .. })
    }

    /// The same offload after `count` bytes were put before the packet; offsets saturate, and a
    /// saturated one fails the bounds check of whoever uses it.
    #[must_use]
    pub fn pushed(mut self, count: usize) -> Self {
        self.push(count);
        self
    }

    /// The same offload after `count` bytes were taken from the front. A checksum that began in
    /// them belonged to a header that is gone: what is left is unchecked.
    #[must_use]
    pub fn pulled(mut self, count: usize) -> Self {
        self.pull(count);
        self
    }

    /// In place, as most packets have no offset that would change.
    #[inline]
    pub(crate) fn push(&mut self, count: usize) {
        if !self.is_undone() {
            return;
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.shift(|at| at.saturating_add(count));
    }

    #[inline]
    pub(crate) fn pull(&mut self, count: usize) {
        if !self.is_undone() {
            return;
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if matches!(self.checksum, Checksum::Partial { start, .. } if start < count) {
            self.checksum = Checksum::Unchecked;
        }
        self.shift(|at| at.saturating_sub(count));
    }

    #[inline]
    fn shift(&mut self, by: impl Fn(u16) -> u16) {
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start = by(*start);
        }
        if let Some(gso) = &mut self.gso {
            gso.header_len = by(gso.header_len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, Gso, GsoKind, Offload};

    const SUPERFRAME: Offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso {
            kind: GsoKind::Tcp4 { ecn: false },
            size: 1448,
            header_len: 66,
            vxlan: None,
        }),
    };

    #[test]
    fn pulled_undoes_pushed() {
        let pushed = SUPERFRAME.pushed(50);
        assert_eq!(pushed.checksum, Checksum::Partial { start: 84, offset: 16 });
        assert_eq!(pushed.gso.map(|gso| gso.header_len), Some(116));
        assert_eq!(pushed.pulled(50), SUPERFRAME);
    }

    #[test]
    fn a_checksum_of_a_header_that_is_gone_is_forgotten() {
        assert_eq!(SUPERFRAME.pulled(50).checksum, Checksum::Unchecked);
    }
}

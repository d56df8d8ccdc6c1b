//! Neighbour discovery (RFC 4861): solicitations and advertisements of neighbours.
//!
//! Enters: a whole ICMPv6 message of type 135 or 136, from its type byte on, whose checksum and
//! whose packet's hop limit of 255 the caller has checked (RFC 4861 sections 7.1.1 and 7.1.2).
//! Leaves: which address is asked for, and the answer, which the switch gives itself for its
//! gateways. Of other messages, and before those checks, [`names_only`] is asked.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4  | ICMPv6 type, code 0, checksum |
//! | 4..8  | flags of an advertisement: R, S, O; reserved |
//! | 8..24 | target |
//! | 24..  | options: type, length in units of 8, then the value |

use core::fmt;
use core::net::Ipv6Addr;

use super::icmpv6::{self, NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION};
use super::{MacAddr, Malformed, field, put};

/// Bytes of a message without options.
pub const HEADER_LEN: usize = 24;

/// Bytes of one link-layer address option on Ethernet.
const LINK_OPTION_LEN: usize = 8;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

/// Options that are read before a message is refused: neighbours send one or two.
const MAX_OPTIONS: usize = 8;

/// A neighbour solicitation, borrowed: the request for the target's MAC.
#[derive(Debug, Clone, Copy)]
pub struct Solicitation<'a> {
    header: &'a [u8; HEADER_LEN],
    source_link: Option<MacAddr>,
}

impl<'a> Solicitation<'a> {
    /// Reads a message, which ends with the bytes.
    ///
    /// # Errors
    /// `Truncated`; `Unsupported` for another type or code; `Address` for a multicast target;
    /// `Options`.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (header, source_link) = parse(message, NEIGHBOR_SOLICITATION, SOURCE_LINK)?;
        Ok(Self { header, source_link })
    }

    /// The address that is asked for.
    #[inline]
    #[must_use]
    pub fn target(&self) -> Ipv6Addr {
        target(self.header)
    }

    /// The asker's MAC; absent when an address is probed for duplicates.
    #[inline]
    #[must_use]
    pub fn source_link(&self) -> Option<MacAddr> {
        self.source_link
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr::Solicitation { target: self.target(), source_link: self.source_link }
    }
}

/// A neighbour advertisement, borrowed: the target is here.
#[derive(Debug, Clone, Copy)]
pub struct Advertisement<'a> {
    header: &'a [u8; HEADER_LEN],
    target_link: Option<MacAddr>,
}

impl<'a> Advertisement<'a> {
    /// Reads a message, which ends with the bytes.
    ///
    /// # Errors
    /// `Truncated`; `Unsupported` for another type or code; `Address` for a multicast target;
    /// `Options`.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (header, target_link) = parse(message, NEIGHBOR_ADVERTISEMENT, TARGET_LINK)?;
        Ok(Self { header, target_link })
    }

    /// The address that is announced.
    #[inline]
    #[must_use]
    pub fn target(&self) -> Ipv6Addr {
        target(self.header)
    }

    /// What the announcement means.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> AdvertFlags {
        AdvertFlags::from_bits(self.header[4])
    }

    /// The MAC of the target, if the message has it.
    #[inline]
    #[must_use]
    pub fn target_link(&self) -> Option<MacAddr> {
        self.target_link
    }

    /// The fields by value.
    #[must_use]
    pub fn repr(&self) -> Repr {
        Repr::Advertisement {
            target: self.target(),
            flags: self.flags(),
            target_link: self.target_link,
        }
    }
}

/// Flags of an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdvertFlags {
    /// R: the sender is a router.
    pub router: bool,
    /// S: the message answers a solicitation.
    pub solicited: bool,
    /// O: what a cache already holds is to be replaced.
    pub overriding: bool,
}

impl AdvertFlags {
    const fn from_bits(bits: u8) -> Self {
        Self { router: bits & 0x80 != 0, solicited: bits & 0x40 != 0, overriding: bits & 0x20 != 0 }
    }

    const fn bits(self) -> u8 {
        (self.router as u8) << 7 | (self.solicited as u8) << 6 | (self.overriding as u8) << 5
    }
}

/// The group that a target's solicitations go to: ff02::1:ff and its last 24 bits (RFC 4291
/// section 2.7.1).
#[must_use]
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let group = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    Ipv6Addr::from_bits(u128::from_be_bytes(group))
}

fn target(header: &[u8; HEADER_LEN]) -> Ipv6Addr {
    Ipv6Addr::from(field::<8, 16, _>(header))
}

/// What both messages share: the header, and the first link-layer address of the wanted kind.
fn parse(
    message: &[u8],
    kind: u8,
    link_option: u8,
) -> Result<(&[u8; HEADER_LEN], Option<MacAddr>), Malformed> {
    let (header, options) = message.split_first_chunk().ok_or(Malformed::Truncated)?;
    if field::<0, 2, HEADER_LEN>(header) != [kind, 0] {
        return Err(Malformed::Unsupported);
    }
    if target(header).is_multicast() {
        return Err(Malformed::Address);
    }
    Ok((header, link_address(options, link_option)?))
}

/// The first link-layer address of the wanted kind. One of another length belongs to another medium:
/// ignored, like unknown options.
fn link_address(options: &[u8], wanted: u8) -> Result<Option<MacAddr>, Malformed> {
    let mut found = None;
    each_option(options, |kind, option| {
        if kind == wanted && found.is_none() {
            found = mac_of(option);
        }
    })?;
    Ok(found)
}

/// Whether every link-layer address among the options of a message is this MAC: receivers differ in
/// which one they take of several.
///
/// # Errors
/// `Options`.
pub fn names_only(options: &[u8], mac: MacAddr) -> Result<bool, Malformed> {
    let mut only = true;
    each_option(options, |kind, option| {
        only &= !matches!(kind, SOURCE_LINK | TARGET_LINK) || mac_of(option) == Some(mac);
    })?;
    Ok(only)
}

/// The MAC in a link-layer address option of Ethernet.
fn mac_of(option: &[u8]) -> Option<MacAddr> {
    let option: &[u8; LINK_OPTION_LEN] = option.try_into().ok()?;
    Some(MacAddr(field::<2, 6, _>(option)))
}

/// Walks all options, so that a message with a broken one is refused whole: nodes "MUST silently
/// discard an ND packet that contains an option with length zero" (RFC 4861 section 4.6).
fn each_option(mut options: &[u8], mut visit: impl FnMut(u8, &[u8])) -> Result<(), Malformed> {
    for _ in 0..MAX_OPTIONS {
        if options.is_empty() {
            return Ok(());
        }
        let &[kind, units, ..] = options else { return Err(Malformed::Options) };
        if units == 0 {
            return Err(Malformed::Options);
        }
        let (option, rest) =
            options.split_at_checked(usize::from(units) * 8).ok_or(Malformed::Options)?;
        options = rest;
        visit(kind, option);
    }
    if options.is_empty() { Ok(()) } else { Err(Malformed::Options) }
}

/// A message by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr {
    /// A request for the MAC of the target.
    Solicitation {
        /// The address that is asked for.
        target: Ipv6Addr,
        /// The asker's MAC; none in a probe for duplicates.
        source_link: Option<MacAddr>,
    },
    /// The target is here.
    Advertisement {
        /// The address that is announced.
        target: Ipv6Addr,
        /// What the announcement means.
        flags: AdvertFlags,
        /// The target's MAC.
        target_link: Option<MacAddr>,
    },
}

impl Repr {
    /// Bytes of the message.
    #[must_use]
    pub const fn message_len(&self) -> usize {
        match self {
            Self::Solicitation { source_link: link, .. }
            | Self::Advertisement { target_link: link, .. } => match link {
                Some(_) => HEADER_LEN + LINK_OPTION_LEN,
                None => HEADER_LEN,
            },
        }
    }

    /// Writes the message with its checksum and returns its length; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<usize> {
        let message = bytes.get_mut(..self.message_len())?;
        let (kind, flags, target, option, link) = match *self {
            Self::Solicitation { target, source_link } => {
                (NEIGHBOR_SOLICITATION, 0, target, SOURCE_LINK, source_link)
            }
            Self::Advertisement { target, flags, target_link } => {
                (NEIGHBOR_ADVERTISEMENT, flags.bits(), target, TARGET_LINK, target_link)
            }
        };
        let (header, options) = message.split_first_chunk_mut::<HEADER_LEN>()?;
        put::<8, 16, _>(header, target.octets());
        if let Some(mac) = link {
            let options = options.first_chunk_mut::<LINK_OPTION_LEN>()?;
            put::<0, 2, _>(options, [option, 1]);
            put::<2, 6, _>(options, mac.0);
        }
        let rest = [flags, 0, 0, 0];
        icmpv6::Repr { kind, code: 0, rest }.emit(message, source, destination)?;
        Some(self.message_len())
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Solicitation { target, source_link } => {
                write!(f, "ICMP6 neighbor solicitation, who has {target}")?;
                source_link.map_or(Ok(()), |mac| write!(f, ", source link-address {mac}"))
            }
            Self::Advertisement { target, flags, target_link } => {
                write!(f, "ICMP6 neighbor advertisement, tgt is {target}")?;
                let named = [
                    (flags.router, ", router"),
                    (flags.solicited, ", solicited"),
                    (flags.overriding, ", override"),
                ];
                named
                    .into_iter()
                    .filter(|(set, _)| *set)
                    .try_for_each(|(_, name)| f.write_str(name))?;
                target_link.map_or(Ok(()), |mac| write!(f, ", target link-address {mac}"))
            }
        }
    }
}

#[cfg(test)]
#[path = "ndp/tests.rs"]
mod tests;

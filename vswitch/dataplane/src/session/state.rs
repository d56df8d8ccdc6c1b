//! How far a session has come, and how long it may stay silent.
//!
//! Enters: the flags of each packet and its direction. Leaves: the next state. No windows and no
//! sequence numbers are followed: a middle that judges them resets connections that both ends hold
//! for sound.

use super::tuple::Direction;
use crate::wire::{Protocol, TcpFlags};

/// Seconds on a clock that every user of the table shares, which goes on while no process runs:
/// the kernel's time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Seconds since an earlier moment; zero if it is later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Not answered: TCP before both ends have acknowledged something, UDP and others in one
    /// direction, and every echo. It may be evicted. A TCP session that is reset before it was
    /// established stays one, so that a scan of closed ports takes no more room than other floods.
    Embryonic = 1,
    /// Answered. Never evicted.
    Established = 2,
    /// Both ends of TCP have sent a FIN.
    Finished = 3,
    /// An established TCP session that one end has reset.
    Reset = 4,
}

impl Class {
    /// Whether it is about to end: a SYN then makes a new session.
    #[inline]
    #[must_use]
    pub fn is_closing(self) -> bool {
        matches!(self, Self::Finished | Self::Reset)
    }

    fn of_number(number: u8) -> Option<Self> {
        [Self::Embryonic, Self::Established, Self::Finished, Self::Reset]
            .into_iter()
            .find(|class| *class as u8 == number)
    }
}

/// What a session's packets have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// When the last packet was seen.
    pub last_seen: Tick,
    /// What the opener has sent: TCP's FIN, SYN, RST and ACK; of other protocols [`SEEN`].
    pub opener: u8,
    /// What the other end has sent.
    pub responder: u8,
    /// How far it has come.
    pub class: Class,
}

/// In [`State`], of protocols other than TCP: something was sent.
pub const SEEN: u8 = 0x80;

const FIN: u8 = TcpFlags::FIN.0;
const SYN: u8 = TcpFlags::SYN.0;
const RST: u8 = TcpFlags::RST.0;
const ACK: u8 = TcpFlags::ACK.0;

impl State {
    /// The state after the first packet. `flags` are TCP's; of other protocols they mean nothing.
    #[must_use]
    pub fn opened(protocol: Protocol, flags: TcpFlags, now: Tick) -> Self {
        Self::joined(protocol, Direction::FromOpener, flags, now)
    }

    /// The state after the first packet that was seen, which came from this end.
    #[must_use]
    pub fn joined(protocol: Protocol, direction: Direction, flags: TcpFlags, now: Tick) -> Self {
        let nothing = Self { last_seen: now, opener: 0, responder: 0, class: Class::Embryonic };
        nothing.after(protocol, direction, flags, now)
    }

    /// The state after one packet more.
    #[inline]
    #[must_use]
    pub fn after(
        self,
        protocol: Protocol,
        direction: Direction,
        flags: TcpFlags,
        now: Tick,
    ) -> Self {
        let mut next = Self { last_seen: self.last_seen.max(now), ..self };
        if protocol == Protocol::TCP {
            next.tcp(direction, flags.0 & (FIN | SYN | RST | ACK));
        } else {
            *next.side(direction) |= SEEN;
            let is_echo = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
            if next.both(SEEN) && !is_echo {
                next.class = Class::Established;
            }
        }
        next
    }

    #[inline]
    fn tcp(&mut self, direction: Direction, flags: u8) {
        if flags & RST != 0 {
            if self.class != Class::Embryonic {
                // Counted anew: data from both sides shows that neither believed the RST.
                self.opener &= !ACK;
                self.responder &= !ACK;
                self.class = Class::Reset;
            }
            *self.side(direction) |= RST;
            return;
        }
        if self.class.is_closing() && flags & SYN != 0 {
            // Of a session to come, which this one is not.
            return;
        }
        *self.side(direction) |= flags;
        if self.both(ACK) {
            self.opener &= !RST;
            self.responder &= !RST;
            self.class = if self.both(FIN) { Class::Finished } else { Class::Established };
        }
    }

    #[inline]
    fn side(&mut self, direction: Direction) -> &mut u8 {
        match direction {
            Direction::FromOpener => &mut self.opener,
            Direction::FromResponder => &mut self.responder,
        }
    }

    #[inline]
    fn both(&self, bits: u8) -> bool {
        self.opener & self.responder & bits == bits
    }

    /// Whether it was silent for longer than its class may be.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, protocol: Protocol, now: Tick) -> bool {
        now.since(self.last_seen) > timeout_s(protocol, self.class)
    }

    /// last_seen, 32 bits; opener, responder, class, 8 each; 8 of zero.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.last_seen.0) << 32
            | u64::from(self.opener) << 24
            | u64::from(self.responder) << 16
            | u64::from(self.class as u8) << 8
    }

    /// `None` of a word that is no state.
    #[inline]
    pub(crate) fn of_word(word: u64) -> Option<Self> {
        Some(Self {
            last_seen: Tick((word >> 32) as u32),
            opener: (word >> 24) as u8,
            responder: (word >> 16) as u8,
            class: Class::of_number((word >> 8) as u8)?,
        })
    }
}

/// Whether this is the first segment of a TCP connection.
#[inline]
#[must_use]
pub fn is_opening(protocol: Protocol, flags: TcpFlags) -> bool {
    protocol == Protocol::TCP && flags.0 & (SYN | ACK | RST) == SYN
}

/// Seconds of silence after which a session counts as absent.
///
/// An established TCP session lives for RFC 5382's minimum of 2 hours and 4 minutes, an answered UDP
/// one for RFC 4787's of 2 minutes. A half-closed connection is an established one: its other half
/// may be silent for long.
#[inline]
#[must_use]
pub fn timeout_s(protocol: Protocol, class: Class) -> u32 {
    match (protocol, class) {
        (Protocol::TCP, Class::Embryonic | Class::Reset) => 30,
        (Protocol::TCP, Class::Established) => 7440,
        (Protocol::TCP, Class::Finished) => 120,
        (Protocol::UDP, Class::Embryonic) => 30,
        (Protocol::UDP, _) => 120,
        (Protocol::ICMP | Protocol::ICMPV6, _) => 30,
        _ => 600,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::{Class, Direction, SEEN, State, Tick, is_opening, timeout_s};
    use crate::wire::{Protocol, TcpFlags};

    const FIN_ACK: TcpFlags = TcpFlags::FIN.with(TcpFlags::ACK);
    const SYN_ACK: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK);
    const RST_ACK: TcpFlags = TcpFlags::RST.with(TcpFlags::ACK);

    /// The class after these segments: `>` from the opener, `<` from the other end.
    fn after(segments: &[(char, TcpFlags)]) -> Class {
        let (first, rest) = segments.split_first().unwrap();
        let opened = State::opened(Protocol::TCP, first.1, Tick(0));
        let after = rest.iter().fold(opened, |state, (side, flags)| {
            let direction =
                if *side == '>' { Direction::FromOpener } else { Direction::FromResponder };
            state.after(Protocol::TCP, direction, *flags, Tick(0))
        });
        after.class
    }

    const HANDSHAKE: [(char, TcpFlags); 3] =
        [('>', TcpFlags::SYN), ('<', SYN_ACK), ('>', TcpFlags::ACK)];

    fn then(rest: &[(char, TcpFlags)]) -> Class {
        after(&[&HANDSHAKE[..], rest].concat())
    }

    #[test]
    fn a_handshake_establishes_and_no_less() {
        assert_eq!(after(&HANDSHAKE[..1]), Class::Embryonic);
        assert_eq!(after(&HANDSHAKE[..2]), Class::Embryonic);
        assert_eq!(after(&HANDSHAKE), Class::Established);
        // Found in the middle of the connection.
        assert_eq!(after(&[('>', TcpFlags::ACK)]), Class::Embryonic);
        assert_eq!(after(&[('>', TcpFlags::ACK), ('<', TcpFlags::ACK)]), Class::Established);
    }

    #[test]
    fn fins_of_both_sides_finish() {
        assert_eq!(then(&[('>', FIN_ACK)]), Class::Established);
        assert_eq!(then(&[('>', FIN_ACK), ('<', FIN_ACK)]), Class::Finished);
        assert_eq!(then(&[('<', FIN_ACK), ('>', FIN_ACK), ('<', TcpFlags::ACK)]), Class::Finished);
        // A later SYN does not make it young again: it is another session's.
        assert_eq!(then(&[('<', FIN_ACK), ('>', FIN_ACK), ('>', TcpFlags::SYN)]), Class::Finished);
    }

    #[test]
    fn a_reset_closes_until_both_sides_send_on() {
        let reset = ('<', RST_ACK);
        assert_eq!(then(&[reset]), Class::Reset);
        assert_eq!(then(&[reset, ('>', TcpFlags::ACK)]), Class::Reset);
        assert_eq!(then(&[reset, ('>', TcpFlags::ACK), ('<', TcpFlags::RST)]), Class::Reset);
        let data = [('>', TcpFlags::ACK), ('<', TcpFlags::ACK)];
        assert_eq!(then(&[&[reset][..], &data].concat()), Class::Established);
        assert_eq!(then(&[reset, ('>', SYN_ACK), ('<', SYN_ACK)]), Class::Reset);
        let finished = [('>', FIN_ACK), ('<', FIN_ACK), ('<', TcpFlags::RST)];
        assert_eq!(then(&finished), Class::Reset);
        assert_eq!(then(&[&finished[..], &data].concat()), Class::Finished);
    }

    #[test]
    fn a_refused_connection_stays_embryonic_and_may_be_tried_again() {
        let refused = [('>', TcpFlags::SYN), ('<', RST_ACK)];
        assert_eq!(after(&refused), Class::Embryonic);
        assert_eq!(after(&[&refused[..], &HANDSHAKE].concat()), Class::Established);
    }

    #[test]
    fn other_protocols_are_established_by_an_answer_but_an_echo_never_is() {
        for (protocol, class) in [
            (Protocol::UDP, Class::Established),
            (Protocol::SCTP, Class::Established),
            (Protocol::ICMP, Class::Embryonic),
            (Protocol::ICMPV6, Class::Embryonic),
        ] {
            let state = State::opened(protocol, TcpFlags::NONE, Tick(4));
            assert_eq!((state.opener, state.responder, state.class), (SEEN, 0, Class::Embryonic));
            let again = state.after(protocol, Direction::FromOpener, TcpFlags::NONE, Tick(5));
            assert_eq!(again, State { last_seen: Tick(5), ..state });
            let answered = state.after(protocol, Direction::FromResponder, TcpFlags::NONE, Tick(3));
            assert_eq!((answered.class, answered.last_seen), (class, Tick(4)), "{protocol}");
        }
    }

    #[test]
    fn a_session_expires_when_it_was_silent_for_longer_than_its_timeout() {
        let state = State::opened(Protocol::TCP, TcpFlags::SYN, Tick(100));
        assert!(!state.is_expired(Protocol::TCP, Tick(99)));
        assert!(!state.is_expired(Protocol::TCP, Tick(130)));
        assert!(state.is_expired(Protocol::TCP, Tick(131)));
        assert_eq!(timeout_s(Protocol::TCP, Class::Established), 7440);
        assert_eq!(timeout_s(Protocol::UDP, Class::Established), 120);
        assert_eq!(timeout_s(Protocol::ESP, Class::Established), 600);
    }

    #[test]
    fn a_connection_opens_with_a_bare_syn() {
        assert!(is_opening(Protocol::TCP, TcpFlags::SYN.with(TcpFlags::ECE)));
        for flags in [SYN_ACK, TcpFlags::ACK, TcpFlags::SYN.with(TcpFlags::RST)] {
            assert!(!is_opening(Protocol::TCP, flags));
        }
        assert!(!is_opening(Protocol::UDP, TcpFlags::SYN));
    }

    proptest! {
        #[test]
        fn any_word_is_a_state_or_none(word: u64) {
            if let Some(state) = State::of_word(word) {
                prop_assert_eq!(state.to_word(), word & !0xff);
            } else {
                prop_assert!(!(1..=4).contains(&((word >> 8) as u8)));
            }
        }

        #[test]
        fn a_session_that_was_established_is_never_embryonic_again(
            segments in proptest::collection::vec((any::<bool>(), any::<u8>()), 1..20)
        ) {
            let mut state = State::opened(Protocol::TCP, TcpFlags::SYN, Tick(0));
            for (from_opener, flags) in segments {
                let direction =
                    if from_opener { Direction::FromOpener } else { Direction::FromResponder };
                let next = state.after(Protocol::TCP, direction, TcpFlags(flags), Tick(0));
                prop_assert!(
                    next.class != Class::Embryonic || state.class == Class::Embryonic
                );
                state = next;
            }
        }
    }
}

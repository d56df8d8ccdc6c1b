//! A session as callers see it, and as words of the table.
//!
//! Enters: a [`Session`] to be stored, or an entry's words as they were read. Leaves: the other of the
//! two. Nothing else knows the layout; [`LAYOUT`](super::header) is raised when it changes.
//!
//! | word of IPv4 | of IPv6 | holds, highest bits first |
//! |---|---|---|
//! | 0 | 0-3 | addresses: the lower end's, the higher end's |
//! | 1 | 4 | ports: 16, 16; protocol 8, flags 8, zone 16 |
//! | 2 | 5 | last seen 32; bits of the opener 8, of the responder 8; class 8 |
//! | 3 | 6 | policy's generation 32; revoked 1; rules in 15, out 16 |
//! | 4, 5 | 9-13 | of a translated session: the destination and source that the opener sent; charged port 16 |
//! | 6 | 7 | created 32; service 32 |
//! | 7 | 8 | local ports in 16, out 16; service's generation 32 |
//!
//! A translated session has two entries. The main one stands at the tuple that its responder sees, and
//! has everything. The alias stands at the tuple that its opener sends, and in words 4 and 5 (9-13) has
//! the ends of the main one. So each side's packets find it, two sessions of one client with two
//! virtual addresses of one backend differ in both, and state is in one place.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::state::{State, Tick};
use super::tuple::{Endpoint, FLAGS_SHIFT, Key, Sorted, Tuple, bits};
use crate::tables::PortId;
use crate::wire::Protocol;

/// What policy found for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PolicyStamp {
    /// The generation of the policies that decided; zero if none did yet.
    pub generation: u32,
    /// The number of the rule that let it into its target, in the table of that pod: of 15 bits. The
    /// highest if no rule did.
    pub rule_in: u16,
    /// The number of the rule that let it out of its opener; likewise.
    pub rule_out: u16,
    /// It was allowed once, and is not any more. The session stays, so that its packets are known: none
    /// of them begins another one, from whichever end it comes.
    pub is_revoked: bool,
}

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session {
    /// From the opener, as the opener sends it: to a virtual address, if it speaks to a service.
    pub client_side: Tuple,
    /// From the opener, as the responder receives it: equal if nothing is translated. Zone, protocol
    /// and IP version are those of the client's side.
    pub server_side: Tuple,
    /// How far it has come.
    pub state: State,
    /// What policy found.
    pub policy: PolicyStamp,
    /// The port whose quota it uses: the opening pod's; of one from outside, its target's.
    pub charged: PortId,
    /// When it was created.
    pub created: Tick,
    /// Number of the service; zero if it is none's.
    pub service: u32,
    /// The generation of the services by which its backend was chosen.
    pub service_generation: u32,
    /// The local port by which the opener's packets come, if one does.
    pub local_in: Option<PortId>,
    /// The local port by which they leave, if they do.
    pub local_out: Option<PortId>,
    /// A peer itself opened it, by its underlay address through its tunnel: answers go back through that.
    pub through_tunnel: bool,
}

impl Session {
    /// Whether an address or a port is translated.
    #[inline]
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.client_side != self.server_side
    }

    /// Whether its packets' endpoints or ways are other than their addresses and routes say: each of them
    /// is looked up.
    #[inline]
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.is_translated() || self.through_tunnel
    }

    /// The transport protocol.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.server_side.protocol()
    }

    /// Whether the first packet of a new connection takes its place.
    #[inline]
    #[must_use]
    pub fn is_replaceable(&self) -> bool {
        self.state.class.is_closing() || self.policy.is_revoked
    }

    /// Whether it counts as absent, though its entry may still be there.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now: Tick) -> bool {
        self.state.is_expired(self.protocol(), now)
    }

    /// The ports of its pods here, and the one that it is charged to, by which its opener's packets
    /// come if that is no pod; each once.
    pub(crate) fn carriers(&self) -> impl Iterator<Item = PortId> {
        let local_in = self.local_in.filter(|port| *port != self.charged);
        let out = self.local_out.filter(|port| *port != self.charged && Some(*port) != local_in);
        core::iter::once(self.charged).chain(local_in).chain(out)
    }
}

/// In the word of policy: the session is revoked.
const REVOKED: u64 = 1 << 31;

/// The opener is the higher end.
const OPENER_IS_HIGHER: u64 = 1 << FLAGS_SHIFT;
/// The two sides' tuples differ.
const TRANSLATED: u64 = 2 << FLAGS_SHIFT;
/// The entry is a translated session's second one.
const ALIAS: u64 = 4 << FLAGS_SHIFT;
/// A peer itself opened it through its tunnel.
const THROUGH_TUNNEL: u64 = 8 << FLAGS_SHIFT;
const FLAGS: u64 = 0xff << FLAGS_SHIFT;

const NO_PORT: u16 = u16::MAX;

/// The words of one entry, by name; those of both families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    addresses: [u64; 4],
    meta: u64,
    state: u64,
    policy: u64,
    ends: [(u128, u16); 2],
    charged: u16,
    created: u64,
    local: u64,
}

/// The words of an entry of one family, as an array.
pub(crate) trait Layout: Copy + AsRef<[u64]> + AsMut<[u64]> {
    /// Words of an entry.
    const WORDS: usize;
    /// The words that hold addresses; `meta` follows, and state behind it.
    const ADDRESS_WORDS: usize;
    /// The word that holds the state; policy follows.
    const STATE: usize = Self::ADDRESS_WORDS + 1;
    /// The word that holds local ports and the service's generation.
    const LOCAL: usize;
    /// Whether addresses are IPv6's.
    const IS_V6: bool;
    const ZERO: Self;

    fn fields(&self) -> Fields;
    fn of_fields(fields: &Fields) -> Self;
}

/// An IPv4 entry: 64 bytes.
pub(crate) type V4 = [u64; 8];
/// An IPv6 entry: 128 bytes.
pub(crate) type V6 = [u64; 16];

impl Layout for V4 {
    const WORDS: usize = 8;
    const ADDRESS_WORDS: usize = 1;
    const LOCAL: usize = 7;
    const IS_V6: bool = false;
    const ZERO: Self = [0; 8];

    #[inline]
    fn fields(&self) -> Fields {
        let [addresses, meta, state, policy, one, other, created, local] = *self;
        let end = |word: u64| (u128::from(word >> 32), (word >> 16) as u16);
        Fields {
            addresses: [addresses, 0, 0, 0],
            meta,
            state,
            policy,
            ends: [end(one), end(other)],
            charged: other as u16,
            created,
            local,
        }
    }

    fn of_fields(fields: &Fields) -> Self {
        let [addresses, ..] = fields.addresses;
        let [one, other] =
            fields.ends.map(|(address, port)| (address as u64) << 32 | u64::from(port) << 16);
        let Fields { meta, state, policy, created, local, .. } = *fields;
        let other = other | u64::from(fields.charged);
        [addresses, meta, state, policy, one, other, created, local]
    }
}

impl Layout for V6 {
    const WORDS: usize = 16;
    const ADDRESS_WORDS: usize = 4;
    const LOCAL: usize = 8;
    const IS_V6: bool = true;
    const ZERO: Self = [0; 16];

    #[inline]
    fn fields(&self) -> Fields {
        let [a, b, c, d, meta, state, policy, created, local, e, f, g, h, ports, _, _] = *self;
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Fields {
            addresses: [a, b, c, d],
            meta,
            state,
            policy,
            ends: [(wide(e, f), (ports >> 48) as u16), (wide(g, h), (ports >> 32) as u16)],
            charged: ports as u16,
            created,
            local,
        }
    }

    fn of_fields(fields: &Fields) -> Self {
        let [a, b, c, d] = fields.addresses;
        let [(one, one_port), (other, other_port)] = fields.ends;
        let ports =
            u64::from(one_port) << 48 | u64::from(other_port) << 32 | u64::from(fields.charged);
        let Fields { meta, state, policy, created, local, .. } = *fields;
        let halves = |wide: u128| ((wide >> 64) as u64, wide as u64);
        let ((e, f), (g, h)) = (halves(one), halves(other));
        [a, b, c, d, meta, state, policy, created, local, e, f, g, h, ports, 0, 0]
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    Main(Session),
    /// Its opener's tuple, and the main entry's key.
    Alias {
        opener_is_higher: bool,
        main: Key,
    },
}

/// The main entry of a session, and its alias if it is translated.
pub(crate) fn encode<L: Layout>(session: &Session) -> (L, Option<L>) {
    let (client, server) = (Sorted::of(&session.client_side), Sorted::of(&session.server_side));
    let is_translated = session.is_translated();
    let opener = |sorted: &Sorted| if sorted.source_is_higher { OPENER_IS_HIGHER } else { 0 };
    let end = |end: Endpoint| (bits(end.address), end.port);
    let ends = [end(session.client_side.destination()), end(session.client_side.source())];
    let policy = session.policy;
    let main = Fields {
        addresses: server.key.addresses,
        meta: server.key.meta
            | opener(&server)
            | if is_translated { TRANSLATED } else { 0 }
            | if session.through_tunnel { THROUGH_TUNNEL } else { 0 },
        state: session.state.to_word(),
        policy: policy_word(policy),
        ends: if is_translated { ends } else { [(0, 0); 2] },
        charged: session.charged.0,
        created: u64::from(session.created.0) << 32 | u64::from(session.service),
        local: local_word(session),
    };
    let lower = server.key.tuple(L::IS_V6, false);
    let alias = Fields {
        addresses: client.key.addresses,
        meta: client.key.meta | opener(&client) | ALIAS,
        state: 0,
        policy: 0,
        ends: [end(lower.source()), end(lower.destination())],
        charged: 0,
        created: 0,
        local: 0,
    };
    (L::of_fields(&main), is_translated.then(|| L::of_fields(&alias)))
}

pub(crate) fn local_word(session: &Session) -> u64 {
    let port = |port: Option<PortId>| u64::from(port.map_or(NO_PORT, |port| port.0));
    port(session.local_in) << 48
        | port(session.local_out) << 32
        | u64::from(session.service_generation)
}

pub(crate) fn policy_word(policy: PolicyStamp) -> u64 {
    u64::from(policy.generation) << 32
        | (u64::from(policy.rule_in) << 16) & !REVOKED
        | u64::from(policy.rule_out)
        | if policy.is_revoked { REVOKED } else { 0 }
}

/// What the words hold; `None` if they are no entry.
#[inline]
pub(crate) fn decode<L: Layout>(words: &L) -> Option<Entry> {
    let fields = words.fields();
    let key = key(&fields);
    let opener_is_higher = fields.meta & OPENER_IS_HIGHER != 0;
    let [one, other] = fields.ends.map(|(address, port)| Endpoint {
        address: if L::IS_V6 {
            IpAddr::V6(Ipv6Addr::from_bits(address))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(address as u32))
        },
        port,
    });
    let own = key.tuple(L::IS_V6, opener_is_higher);
    let between = |source, destination| Tuple::new(own.zone(), own.protocol(), source, destination);
    if fields.meta & ALIAS != 0 {
        let main = Sorted::of(&between(one, other)?).key;
        return Some(Entry::Alias { opener_is_higher, main });
    }
    let port = |shift: u32| Some(PortId((fields.local >> shift) as u16)).filter(|p| p.0 != NO_PORT);
    let is_translated = fields.meta & TRANSLATED != 0;
    Some(Entry::Main(Session {
        client_side: if is_translated { between(other, one)? } else { own },
        server_side: own,
        state: State::of_word(fields.state)?,
        policy: PolicyStamp {
            generation: (fields.policy >> 32) as u32,
            rule_in: ((fields.policy & !REVOKED) >> 16) as u16,
            rule_out: fields.policy as u16,
            is_revoked: fields.policy & REVOKED != 0,
        },
        charged: PortId(fields.charged),
        created: Tick((fields.created >> 32) as u32),
        service: fields.created as u32,
        service_generation: fields.local as u32,
        local_in: port(48),
        local_out: port(32),
        through_tunnel: fields.meta & THROUGH_TUNNEL != 0,
    }))
}

fn key(fields: &Fields) -> Key {
    Key { addresses: fields.addresses, meta: fields.meta & !FLAGS }
}

/// The key of an entry's words.
pub(crate) fn key_of<L: Layout>(words: &L) -> Key {
    key(&words.fields())
}

/// Whether a word `meta` as it was read is this key's.
#[inline]
pub(crate) fn is_meta_of(meta: u64, key: &Key) -> bool {
    meta & !FLAGS == key.meta
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

//! The corridor: from a received packet to its verdict, and from the verdict to what leaves.
//!
//! ```text
//! rx -> [decap] -> parse -> bridge -> [session] -> [route] -> [policy] -> verdict -> rewrite(+encap) -> tx
//!       uplink             L2                      L3                     decide | act
//! ```
//!
//! Left of the verdict a door only looks things up; the packet is borrowed. A door that drops it
//! returns `Err(reason)`, one that decides otherwise writes the verdict where it lies: one byte goes
//! from door to door. Right of it bytes are edited, and nothing is looked up but the
//! number that the verdict names.
//!
//! | door | file | ends a walk with |
//! |---|---|---|
//! | which node sent this over the underlay | `decap` | drops of foreign tunnel packets |
//! | what path MTU its routers report | `path_mtu` | drops of their messages, once noted |
//! | where its headers are           | `parse`   | drops of what is no frame |
//! | whether work left undone is sound | `offload` | drops of requests that contradict the packet |
//! | whether it stays on its segment | `bridge`  | `Forward`, `Tunnel`, `Flood`, `Answer` |
//! | whether its sender may send it  | `source`  | drops of what has another's address |
//! | whether it is of a kind that passes | `guard` | drops of source routes, rogue servers, and fragments that hide what they are |
//! | whether it tells the truth to its segment | `inspect` | drops of ARP and neighbour discovery in another's name |
//! | whether it is answered here     | `resolve` | |
//! | which endpoints it has in its session | `session`, `way_back` | `Refuse`, `Reset` |
//! | where it goes                   | `route`   | `Route`, `Answer`, `Refuse` |
//! | whether policies of pods allow it | `policy` | drops of what they do not |
//! | which size of segments it may announce | `clamp` | |
//! | what a batch is going to read   | `ahead`   | before the walks |
//! | which inner flow IPIP carries   | `ipip`    | before the walks |
//! | whether it is several tunnel packets | `joined` | before the walks |
//! | make it so                      | `translate`, `rewrite`, `answer`, `flood`, `segment`, `superframe`, `fragment`, `coalesce`, `outer_checksum` | |

mod affinity;
pub(crate) mod ahead;
pub(crate) mod answer;
pub(crate) mod arrival;
pub(crate) mod bridge;
mod clamp;
pub(crate) mod coalesce;
pub(crate) mod decap;
pub(crate) mod flood;
pub(crate) mod flow;
pub(crate) mod fragment;
pub(crate) mod fragments;
mod guard;
mod inspect;
pub(crate) mod ipip;
pub(crate) mod joined;
pub(crate) mod narrator;
mod offload;
pub(crate) mod outer_checksum;
pub(crate) mod parse;
pub(crate) mod path_mtu;
pub(crate) mod policy;
mod quoted;
pub(crate) mod reset;
mod resolve;
pub(crate) mod rewrite;
pub(crate) mod route;
pub(crate) mod segment;
pub(crate) mod session;
mod source;
mod standing;
pub(crate) mod superframe;
pub(crate) mod translate;
mod way_back;

use frame::Offload;

use crate::Millis;
use crate::session::{Affinity, Session, SessionEffect, SessionTable, Tick, Tuple};
use crate::tables::{BridgeId, Fdb, PortId, PortRole, Tables, VtepId};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Ecn, MacAddr};
use arrival::{Arrival, ArrivedFrom};
use bridge::Step;
use flow::FlowKey;
use fragments::{FirstFragment, Fragments};
use narrator::{Narrator, TraceEvent};
use parse::{Headers, Net};
use path_mtu::PathMtu;
use policy::Judged;
use translate::Translation;

/// The tables that a decision reads.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) fdb: &'a Fdb,
    pub(crate) sessions: &'a SessionTable,
    pub(crate) fragments: &'a Fragments,
    pub(crate) now: Millis,
}

impl View<'_> {
    /// The session table's time.
    pub(crate) fn tick(&self) -> Tick {
        self.now.tick()
    }
}

/// What becomes of a packet: all that [`decide`] leaves for `process` and `act`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision {
    /// The packet's end.
    pub(crate) verdict: Verdict,
    /// Where things are in the frame as it was received.
    pub(crate) headers: Headers,
    pub(crate) edits: Edits,
    pub(crate) effects: Effects,
}

/// What `act` does to the packet besides what its verdict says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edits {
    /// The inner packet's congestion mark when its outer headers are taken away (RFC 6040), if it
    /// changes.
    pub(crate) ecn: Option<Ecn>,
    /// The largest size of segments that this SYN may announce, if it announces more.
    pub(crate) mss_limit: Option<u16>,
    /// The MTU for which the packet is cut into fragments, if it is larger and may be cut.
    pub(crate) fragment_mtu: Option<u16>,
    /// Whether the packet may become one with others of its flow: it came by the NIC.
    pub(crate) may_merge: bool,
    /// Whether a flooded packet has no copy for pods whose policies judge what is sent to them.
    pub(crate) spares_judged: bool,
    /// Other endpoints, if its session has some.
    pub(crate) translation: Option<Translation>,
}

/// What `process` changes in the worker's own state, and `trace` does not. The answer's token from
/// the rate limit is the third of these; whether one is needed is seen from the verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effects {
    /// The MAC to learn.
    pub(crate) learn: Option<LearnMac>,
    /// The path MTU to note.
    pub(crate) path_mtu: Option<PathMtu>,
    /// The session that ends, by its server's side, before another begins.
    pub(crate) ends: Option<Tuple>,
    /// What the packet does to the session table.
    pub(crate) session: Option<SessionEffect>,
    /// The backend that the client gets under affinity, if the session begins.
    pub(crate) affinity: Option<Affinity>,
    /// Where the other fragments of the packet are to go.
    pub(crate) first_fragment: Option<FirstFragment>,
    /// What policies said of its connection, to be counted.
    pub(crate) judged: Judged,
}

impl Effects {
    /// A session begins, in place of the one that ends if one does.
    pub(crate) fn begin(&mut self, session: Session) {
        if let Some(SessionEffect::Close(ended)) = self.session {
            self.ends = Some(ended);
        }
        self.session = Some(SessionEffect::Create(session));
    }

    /// No session begins, and none is touched. One that ends does so all the same.
    pub(crate) fn begin_none(&mut self) {
        self.session = match self.session {
            Some(SessionEffect::Close(ended)) => Some(ended),
            _ => self.ends.take(),
        }
        .map(SessionEffect::Close);
        (self.affinity, self.first_fragment) = (None, None);
    }
}

impl Decision {
    /// The packet's flow as it leaves; `None` if it is no IP packet.
    #[inline(always)]
    pub(crate) fn flow(&self) -> Option<&FlowKey> {
        match (&self.edits.translation, &self.headers.net) {
            (Some(translation), _) => Some(&translation.flow),
            (None, Net::Ip(ip)) => Some(&ip.flow),
            _ => None,
        }
    }

    /// The decision before the first door. [`decide`] fills it in where it lies: a copy of fields
    /// that were stored one by one a moment ago waits until the last of them has reached the cache,
    /// and a handful of such copies cost more than all lookups of a packet.
    #[inline(always)]
    pub(crate) fn open() -> Self {
        Self {
            verdict: Verdict::Drop(DropReason::PortGone),
            headers: Headers::none(),
            edits: Edits {
                ecn: None,
                mss_limit: None,
                fragment_mtu: None,
                may_merge: false,
                spares_judged: false,
                translation: None,
            },
            effects: Effects {
                learn: None,
                path_mtu: None,
                ends: None,
                session: None,
                affinity: None,
                first_fragment: None,
                judged: Judged::NOT,
            },
        }
    }
}

/// A source MAC of a bridge domain, and the VTEP that it is behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LearnMac {
    pub(crate) bridge: BridgeId,
    pub(crate) mac: MacAddr,
    pub(crate) vtep: VtepId,
}

/// Decides what becomes of a packet that arrived by `ingress`; `decision` is [`Decision::open`].
/// Reads only; forwarding, `trace` and the fuzzer all come through here.
#[inline(always)]
pub(crate) fn decide(
    view: &View<'_>,
    ingress: PortId,
    bytes: &[u8],
    offload: &Offload,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) {
    if let Err(reason) = doors(view, ingress, bytes, offload, decision, narrator) {
        decision.verdict = Verdict::Drop(reason);
    }
    narrator.event(|| TraceEvent::Verdict(decision.verdict));
}

#[inline(always)]
fn doors(
    view: &View<'_>,
    ingress: PortId,
    bytes: &[u8],
    offload: &Offload,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let port = view.tables.port(ingress).ok_or(DropReason::PortGone)?;
    let from = match port.kind {
        PortRole::Uplink => ArrivedFrom::Direct,
        PortRole::Pod => ArrivedFrom::Pod,
        PortRole::Host => ArrivedFrom::Host,
    };
    let mut arrival = Arrival::plain(ingress, port, from, bytes.len());
    if port.kind == PortRole::Uplink {
        let path_mtu = &mut decision.effects.path_mtu;
        decap::decap(view.tables, bytes, offload, &mut arrival, path_mtu, narrator)?;
    }
    let offload = &decap::inner_offload(&arrival, offload);
    decision.edits.may_merge = arrival.is_remote();

    parse::parse(bytes, &arrival, &mut decision.headers, narrator)?;
    decision.headers.piece_len = offload::offload(bytes, &decision.headers, offload)?;
    decision.edits.ecn = decap::congestion(&arrival, &decision.headers)?;

    match bridge::bridge(view, &arrival, bytes, decision, narrator)? {
        Step::Done => on_segment(view, &arrival, bytes, decision, narrator),
        Step::Route => routed(view, &arrival, bytes, decision, narrator),
    }
}

/// The doors of a packet that leaves its segment.
#[inline(always)]
fn routed(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let ip = route::admit(view.tables, arrival, bytes, &decision.headers)?;
    let is_of_peer = way_back::is_of_peer_itself(arrival, ip);
    let mut towards = route::look_up(view.tables, &ip.flow);
    let (mut looked_up, mut back) = (None, None);
    if is_of_peer || session::concerns(view, arrival.ingress, towards) {
        let looked_up = &mut looked_up;
        match session::session(view, arrival, bytes, towards, looked_up, decision, narrator)? {
            Step::Done => return Ok(()),
            Step::Route => {}
        }
        if let Some(translation) = &decision.edits.translation {
            towards = route::look_up(view.tables, &translation.flow);
        }
        back = way_back::way_back(view, &decision.headers, looked_up.as_ref(), narrator);
        towards = back.or(towards);
    }
    if let Err(reason) = route::route(view, arrival, bytes, towards, decision, narrator) {
        decision.effects.begin_none();
        return Err(reason);
    }
    if policy::concerns(view.tables, arrival.ingress, &decision.verdict) {
        policy::policy(view, arrival, bytes, &mut looked_up, decision, narrator)?;
    }
    if is_of_peer {
        way_back::open(view, bytes, looked_up.as_ref(), decision);
    }
    session::settle(view.tables, decision);
    if back.is_some() {
        way_back::note_fragment(decision);
    }
    Ok(())
}

/// A packet that stays on its segment may belong to a session too: a backend answers its neighbour
/// without a router between them.
#[inline(always)]
fn on_segment(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    let mut looked_up = None;
    if let Verdict::Forward { port } = decision.verdict
        && session::concerns_ports(view, arrival.ingress, port)
    {
        session::session(view, arrival, bytes, None, &mut looked_up, decision, narrator)?;
        session::settle(view.tables, decision);
    }
    if policy::concerns(view.tables, arrival.ingress, &decision.verdict) {
        policy::policy(view, arrival, bytes, &mut looked_up, decision, narrator)?;
    }
    Ok(())
}

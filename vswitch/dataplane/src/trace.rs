//! The same walk, narrated.
//!
//! Enters: a described packet and the live tables, from the control socket. Leaves: what each door
//! said, the verdict, and the bytes that would leave. `walk::decide` is the production code; it
//! tells a `Narrator` what it found, and the one that forwarding uses hears nothing and costs
//! nothing. Learning, counters, rate limits and ports are not touched.

use frame::{Packet, Pool};

use crate::act::{Act, Outcome};
use crate::tables::{Adjacency, Fdb, PortId, Tables};
use crate::verdict::Verdict;
use crate::walk::narrator::Narrator;
use crate::walk::{Decision, View, decide};
use crate::{Egress, Millis};

/// One door and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The door's name.
    pub door: &'static str,
    /// What it found.
    pub what: String,
}

/// A walk from end to end.
#[derive(Debug)]
pub struct Trace {
    /// What each door said, in order.
    pub said: Vec<Said>,
    /// The end.
    pub verdict: Verdict,
    /// What would leave, by which port.
    pub leaves: Vec<(PortId, Vec<u8>)>,
}

#[derive(Default)]
struct Notes(Vec<Said>);

impl Narrator for Notes {
    fn say(&mut self, door: &'static str, what: impl FnOnce() -> String) {
        self.0.push(Said { door, what: what() });
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let what = verdict.describe();
        self.0.push(Said { door: "verdict", what });
    }
}

/// Walks a packet through live tables without side effect. `pool` lends frames for what leaves.
#[must_use]
pub fn trace(
    tables: &Tables,
    fdb: &Fdb,
    pool: &Pool,
    ingress: PortId,
    packet: Packet,
    now: Millis,
) -> Trace {
    let mut notes = Notes::default();
    let view = View { tables, fdb, now };
    let mut decision = Decision::open();
    decide(&view, ingress, &packet.frame, &packet.offload, &mut decision, &mut notes);
    let mut wire = Wire::default();
    Act { tables, pool, ingress, egress: &mut wire, outcome: Ends, coalescer: None }
        .carry_out(packet, &decision);
    for (port, bytes) in &wire.0 {
        notes.say("rewrite", || format!("{} bytes leave by {port}", bytes.len()));
    }
    Trace { said: notes.0, verdict: decision.verdict, leaves: wire.0 }
}

/// Takes what would be sent.
#[derive(Default)]
struct Wire(Vec<(PortId, Vec<u8>)>);

impl Egress for Wire {
    fn send(&mut self, port: PortId, packet: Packet) -> Result<(), crate::DropReason> {
        self.0.push((port, packet.frame.to_vec()));
        Ok(())
    }

    fn send_with(
        &mut self,
        port: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), crate::DropReason> {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.0.push((port, bytes));
        Ok(())
    }
}

/// Counts nothing: a trace leaves no mark.
struct Ends;

impl Outcome for Ends {
    fn sent(&mut self, _: PortId, _: u64, _: usize) {}

    fn made(&mut self, _: u64) {}

    fn dropped(&mut self, _: PortId, _: u64, _: crate::DropReason) {}
}

impl Adjacency {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Port { port, template, mtu } => {
                format!("{port}, next hop {}, mtu {mtu}", template.destination())
            }
            Self::Bridged { bridge, template, mtu } => {
                format!("bridge domain {}, host {}, mtu {mtu}", bridge.0, template.destination())
            }
            Self::Remote { port, template: Some(template), mtu } => {
                format!("another node by {port}: {}, mtu {mtu}", template.describe())
            }
            Self::Remote { port, template: None, .. } => {
                format!("another node by {port}, whose next hop the kernel has not resolved")
            }
            Self::Gateway { .. } => "an address of this node's gateway".to_owned(),
            Self::Multipath(group) => {
                let members = group.members().iter();
                let members: Vec<_> = members
                    .map(|member| format!("{} weight {}", member.identity, member.weight))
                    .collect();
                format!("one of {} next hops: {}", members.len(), members.join(", "))
            }
            Self::Blackhole => "blackhole".to_owned(),
            Self::Unreachable => "unreachable".to_owned(),
        }
    }
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Forward { port } => format!("forward to {port}"),
            Self::Tunnel { bridge, vtep } => {
                format!("tunnel to VTEP {} of bridge domain {}", vtep.0, bridge.0)
            }
            Self::Flood { bridge, vteps, too_small } => {
                let remote = match (vteps, too_small) {
                    (0, 0) => String::new(),
                    (vteps, 0) => format!(" and {vteps} VTEP(s)"),
                    (vteps, small) => {
                        format!(" and {vteps} VTEP(s), not the {small} whose MTU is smaller")
                    }
                };
                format!("flood bridge domain {}{remote}", bridge.0)
            }
            Self::Route { port, .. } => format!("route to {port}"),
            Self::Answer(answer) => format!("answered in place: {answer}"),
            Self::Refuse { reason, error, .. } => {
                format!("drop: {} The sender is told: {error}.", reason.explanation())
            }
            Self::Drop(reason) => format!("drop: {}", reason.explanation()),
        }
    }
}

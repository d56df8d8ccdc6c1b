//! The same walk, traced.
//!
//! Enters: a described packet and the live tables, from the control socket. Leaves: what each door
//! found, the verdict, and the bytes that would leave. `walk::decide` is the production code; it
//! reports to a `Narrator`, and the one that forwarding uses takes nothing and costs nothing.
//! Learning, counters, rates, rate limits and ports are not touched.

use frame::{Packet, Pool};

use crate::act::{Act, Tally};
use crate::exit::Exit;
use crate::session::SessionTable;
use crate::tables::{Fdb, PortId, Tables};
use crate::verdict::Verdict;
use crate::walk::fragments::Fragments;
use crate::walk::joined;
use crate::walk::narrator::{Narrator, TraceEvent};
use crate::walk::{Decision, View, decide};
use crate::{Dataplane, Egress, Millis};

/// A walk from end to end.
#[derive(Debug)]
pub struct Trace {
    /// What each door found, in the order in which the packet passed them.
    pub events: Vec<TraceEvent>,
    /// The end.
    pub verdict: Verdict,
    /// The packets that would leave, each with its port.
    pub leaves: Vec<(PortId, Vec<u8>)>,
}

#[derive(Default)]
struct Events(Vec<TraceEvent>);

impl Narrator for Events {
    fn event(&mut self, event: impl FnOnce() -> TraceEvent) {
        self.0.push(event());
    }
}

/// Walks a packet through live tables without side effect. `pool` lends frames for what leaves. It
/// follows no fragmented packet, whose later fragments go where the worker saw the first go.
#[must_use]
pub fn trace(
    tables: &Tables,
    fdb: &Fdb,
    sessions: &SessionTable,
    pool: &Pool,
    ingress: PortId,
    packet: Packet,
    now: Millis,
) -> Trace {
    let view = View { tables, fdb, sessions, fragments: &Fragments::new(), now };
    narrate(&view, pool, ingress, packet)
}

impl Dataplane {
    /// The same, of a packet that this worker would receive now.
    #[must_use]
    pub fn trace(
        &self,
        tables: &Tables,
        pool: &Pool,
        ingress: PortId,
        packet: Packet,
        now: Millis,
    ) -> Trace {
        narrate(&self.view(tables, now), pool, ingress, packet)
    }
}

/// Tunnel packets that came as one walk one after the other; the verdict is the last one's.
fn narrate(view: &View<'_>, pool: &Pool, ingress: PortId, packet: Packet) -> Trace {
    let Some(plan) = joined::tunnel_packets(view.tables, ingress, &packet) else {
        return narrate_one(view, pool, ingress, packet);
    };
    let mut all =
        Trace { events: Vec::new(), verdict: Decision::open().verdict, leaves: Vec::new() };
    for piece in 0..plan.pieces() {
        match joined::tunnel_packet(&packet, &plan, piece, pool) {
            Ok(packet) => {
                let Trace { events, verdict, leaves } = narrate_one(view, pool, ingress, packet);
                all.events.extend(events);
                all.leaves.extend(leaves);
                all.verdict = verdict;
            }
            Err(reason) => all.verdict = Verdict::Drop(reason),
        }
    }
    all
}

fn narrate_one(view: &View<'_>, pool: &Pool, ingress: PortId, packet: Packet) -> Trace {
    let tables = view.tables;
    let mut events = Events::default();
    let mut decision = Decision::open();
    decide(view, ingress, &packet.frame, &packet.offload, &mut decision, &mut events);
    let mut wire = Wire::default();
    let exit = Exit { tables, pool, egress: &mut wire, tally: Ends, shaper: None };
    Act { tables, pool, ingress, exit, coalescer: None }.carry_out(packet, &decision);
    for (port, bytes) in &wire.0 {
        events.event(|| TraceEvent::Leaves { port: *port, len: bytes.len() });
    }
    Trace { events: events.0, verdict: decision.verdict, leaves: wire.0 }
}

/// Keeps what would be sent.
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

impl Tally for Ends {
    fn sent(&mut self, _: PortId, _: u64, _: usize) {}

    fn made(&mut self, _: u64) {}

    fn delayed(&mut self, _: PortId) {}

    fn dropped(&mut self, _: PortId, _: u64, _: crate::DropReason, _: &[u8]) {}
}

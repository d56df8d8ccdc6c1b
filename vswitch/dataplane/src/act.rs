//! Right of the verdict: carries a decision out.
//!
//! Enters: a packet and the decision about it. Leaves: packets to [`Exit`], ends to [`Tally`].
//! Nothing is decided here; what still can go wrong (no memory, no room, a full port) drops the
//! packet under its own reason.

use frame::{Checksum, Packet, Pool};

use crate::exit::Exit;
use crate::tables::policy::Direction;
use crate::tables::{
    Adjacency, AdjacencyId, BridgeId, Gateway, Offloads, PortId, PortRole, RemoteVtep, Tables,
};
use crate::verdict::{DropReason, Verdict};
use crate::walk::coalesce::Coalescer;
use crate::walk::parse::{Headers, Net};
use crate::walk::rewrite::{self, Layers, OuterHeaders};
use crate::walk::{
    Decision, answer, flood, fragment, outer_checksum, reset, segment, superframe, translate,
};
use crate::wire::{Ecn, checksum};

/// The way out: the worker's transmit handles.
pub trait Egress {
    /// Sends a packet whole, with whatever its offload leaves undone: the port takes that.
    ///
    /// # Errors
    /// Why the port did not take it.
    fn send(&mut self, port: PortId, packet: Packet) -> Result<(), DropReason>;

    /// Sends a packet of `len` bytes that `write` puts into the port's own memory, once.
    ///
    /// # Errors
    /// Why the port did not take it.
    fn send_with(
        &mut self,
        port: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason>;

    /// Sends a packet as `send` does, at once or together with later ones. Of one that is sent later, the
    /// end is told to [`Dataplane::settle`](crate::Dataplane::settle).
    ///
    /// # Errors
    /// Why the port did not take it.
    fn post(
        &mut self,
        port: PortId,
        packet: Packet,
        _account: Account,
    ) -> Result<Posted, DropReason> {
        self.send(port, packet).map(|()| Posted::Sent)
    }

    /// Gives back the packet that `send` or `post` has just refused, where it is kept for that.
    fn take_refused(&mut self) -> Option<Packet> {
        None
    }
}

/// What is counted at the end of a packet: where it came from, and for how many it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The port that it came from, for which it is counted if it is dropped.
    pub ingress: PortId,
    /// Packets that were merged into it; one otherwise.
    pub packets: u64,
}

/// What a port did with a packet that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It was sent.
    Sent,
    /// It is sent later, or refused later.
    Later,
}

/// The bytes of a packet; none if it is gone.
pub(crate) fn frame_of(packet: Option<&Packet>) -> &[u8] {
    packet.map_or(&[], |packet| &packet.frame)
}

/// Counts the ends of packets: in counters, or not at all for a trace.
pub(crate) trait Tally {
    /// Counts what a port took. A superframe that was merged here stands for all of its `packets`.
    fn sent(&mut self, port: PortId, packets: u64, bytes: usize);
    fn made(&mut self, packets: u64);
    /// Counts a packet that waits for the rate of its port.
    fn delayed(&mut self, port: PortId);
    /// Counts packets that are dropped. `frame` is the first one, and empty if it is gone.
    fn dropped(&mut self, ingress: PortId, packets: u64, reason: DropReason, frame: &[u8]);
}

pub(crate) struct Act<'a, E, O> {
    pub(crate) tables: &'a Tables,
    pub(crate) pool: &'a Pool,
    pub(crate) ingress: PortId,
    pub(crate) exit: Exit<'a, E, O>,
    /// Merges packets; `None` if this one may not be merged.
    pub(crate) coalescer: Option<&'a mut Coalescer>,
}

impl<E: Egress, O: Tally> Act<'_, E, O> {
    /// Edits the packet where it lies, and moves it once, to the way out: a packet that was edited a
    /// moment ago is slow to copy.
    #[inline(always)]
    pub(crate) fn carry_out(&mut self, mut packet: Packet, decision: &Decision) {
        let edited = match decision.verdict {
            Verdict::Forward { port } => {
                forward(&mut packet, decision).map(|layers| (port, layers))
            }
            Verdict::Tunnel { bridge, vtep } => {
                let vtep = self.tables.bridge(bridge).and_then(|bridge| bridge.vtep(vtep));
                vtep.ok_or(DropReason::NextHopUnresolved)
                    .and_then(|vtep| tunnel(&mut packet, decision, vtep))
            }
            Verdict::Route { adjacency, port } => {
                let edited = route(self.tables, &mut packet, decision, adjacency);
                if let (Ok(layers), Some(mtu)) = (&edited, decision.edits.fragment_mtu) {
                    return self.fragments(port, packet, *layers, mtu);
                }
                edited.map(|layers| (port, Some(layers)))
            }
            Verdict::Flood { bridge, vteps, too_small } => {
                return self.flood(packet, decision, bridge, vteps, too_small);
            }
            Verdict::Answer(answer) => return self.answer(packet, decision, answer),
            Verdict::Refuse { reason, error, back } => {
                self.drop(reason, &packet.frame);
                return self.error(packet, decision, error, back);
            }
            Verdict::Reset { reason } => {
                self.drop(reason, &packet.frame);
                return self.reset(packet, decision);
            }
            Verdict::Drop(reason) => Err(reason),
        };
        match edited {
            Ok((port, layers)) => self.transmit(port, packet, layers, &decision.headers),
            Err(reason) => self.drop(reason, &packet.frame),
        }
    }

    /// Sends copies to all destinations but the last, which gets the packet itself. Destinations
    /// with too small an MTU get no copy; each counts as `TooBig`. Nor do pods whose policies judge what
    /// is sent to them, unless the packet is one that all get; each counts as `PolicyFlood`.
    #[inline(never)]
    fn flood(
        &mut self,
        packet: Packet,
        decision: &Decision,
        bridge: BridgeId,
        vteps: u16,
        too_small: u16,
    ) {
        let Some(bridge) = self.tables.bridge(bridge) else {
            return self.drop(DropReason::FloodNowhere, &packet.frame);
        };
        let policies = &self.tables.policies;
        let is_spared = |port| {
            decision.edits.spares_judged && policies.concern_direction(port, Direction::Ingress)
        };
        let others = bridge.members.iter().filter(|port| **port != self.ingress);
        let spared = others.filter(|port| is_spared(**port)).count() as u64;
        self.exit.drop(self.ingress, too_small.into(), DropReason::TooBig, &packet.frame);
        self.exit.drop(self.ingress, spared, DropReason::PolicyFlood, &packet.frame);
        let mut destinations =
            flood::destinations(bridge, self.ingress, vteps, is_spared).peekable();
        let mut original = Some(packet);
        while let Some(destination) = destinations.next() {
            let copy = if destinations.peek().is_none() {
                original.take()
            } else {
                self.exit.tally.made(1);
                original.as_ref().and_then(|packet| flood::duplicate(self.pool, packet))
            };
            let Some(mut copy) = copy else {
                self.drop(DropReason::NoFrames, frame_of(original.as_ref()));
                continue;
            };
            let edited = match destination {
                flood::Destination::Port(port) => {
                    forward(&mut copy, decision).map(|layers| (port, layers))
                }
                flood::Destination::Vtep(id) => bridge
                    .vtep(id)
                    .ok_or(DropReason::NextHopUnresolved)
                    .and_then(|vtep| tunnel(&mut copy, decision, vtep)),
            };
            match edited {
                Ok((port, layers)) => {
                    self.transmit(port, copy, layers, &decision.headers);
                }
                Err(reason) => self.drop(reason, &copy.frame),
            }
        }
        let without = u64::from(too_small) + spared;
        // One of them is the packet itself, if no destination had it.
        let copies = without - u64::from(without > 0 && original.is_some());
        self.exit.tally.made(copies);
    }

    #[inline(never)]
    fn answer(&mut self, mut packet: Packet, decision: &Decision, answer: crate::Answer) {
        let ingress = self.tables.port(self.ingress);
        let from = match ingress.map(|port| (port.kind, port.mac)) {
            Some((PortRole::Uplink, nic)) => nic,
            _ => Gateway::MAC,
        };
        match answer::answer(&mut packet, &decision.headers, answer, from) {
            Some(()) => self.transmit(self.ingress, packet, None, &decision.headers),
            None => self.drop(DropReason::NoHeadroom, &packet.frame),
        }
    }

    /// The packet itself is counted as dropped; its error is another that was made.
    #[inline(never)]
    fn error(
        &mut self,
        mut packet: Packet,
        decision: &Decision,
        error: crate::IcmpError,
        back: Option<AdjacencyId>,
    ) {
        let Net::Ip(ip) = decision.headers.net else { return };
        self.exit.tally.made(1);
        let host = self.tables.port(self.ingress).is_some_and(|port| port.kind == PortRole::Host);
        let speaker = answer::speaker(&self.tables.gateway, &ip, host);
        if answer::icmp_error(&mut packet, &decision.headers, &speaker, error).is_none() {
            return self.drop(DropReason::NoHeadroom, &packet.frame);
        }
        let Some(back) = back else {
            return match answer::from_gateway(
                &mut packet,
                decision.headers.source_mac,
                ip.flow.is_v6(),
            ) {
                Some(()) => self.transmit(self.ingress, packet, None, &decision.headers),
                None => self.drop(DropReason::NoHeadroom, &packet.frame),
            };
        };
        let Some(Adjacency::Remote { port, template: Some(template), .. }) =
            self.tables.adjacency(back)
        else {
            return self.drop(DropReason::NextHopUnresolved, &packet.frame);
        };
        let flow = rewrite::Flow::NONE;
        match rewrite::encapsulate(&mut packet, template, Ecn::NotEct, ip.flow.is_v6(), flow) {
            Some(layers) => self.transmit(*port, packet, Some(layers), &decision.headers),
            None => self.drop(DropReason::NoHeadroom, &packet.frame),
        }
    }

    /// The packet itself is counted as dropped; its reset is another that was made.
    #[inline(never)]
    fn reset(&mut self, mut packet: Packet, decision: &Decision) {
        let Net::Ip(ip) = decision.headers.net else { return };
        self.exit.tally.made(1);
        let to = decision.headers.source_mac;
        let reset = reset::reset(&mut packet, &decision.headers)
            .and_then(|()| answer::from_gateway(&mut packet, to, ip.flow.is_v6()));
        match reset {
            Some(()) => self.transmit(self.ingress, packet, None, &decision.headers),
            None => self.drop(DropReason::NoHeadroom, &packet.frame),
        }
    }

    /// Sends, if the packet is as every port takes it: most are. `layers` are needed for the others,
    /// and `headers` for those that may be merged.
    #[inline(always)]
    fn transmit(
        &mut self,
        port: PortId,
        packet: Packet,
        layers: Option<Layers>,
        headers: &Headers,
    ) {
        let Some(to) = self.tables.port(port) else {
            return self.drop(DropReason::PortGone, &packet.frame);
        };
        let takes = to.offloads;
        let over_v6 = layers.is_some_and(|layers| layers.outer == OuterHeaders::Vxlan6);
        let is_tcp = layers.is_some_and(|layers| layers.is_tcp);
        let may_merge = is_tcp && takes.tso && self.coalescer.is_some();
        if packet.offload.is_undone() || over_v6 || may_merge || to.tx_limit.is_some() {
            return self.work_off(port, takes, packet, layers, headers);
        }
        self.exit.send_unshaped(self.ingress, port, packet);
    }

    /// Works off what the port does not take, merges what it does, and sends as its rate allows.
    #[inline(never)]
    fn work_off(
        &mut self,
        port: PortId,
        takes: Offloads,
        mut packet: Packet,
        layers: Option<Layers>,
        headers: &Headers,
    ) {
        let outer = layers.map_or(OuterHeaders::None, |layers| layers.outer);
        if let Some(gso) = packet.offload.gso {
            if !superframe::is_taken(takes, gso.kind, outer, packet.frame.len()) {
                return self.segments(port, packet, gso, layers);
            }
            if superframe::finish(&mut packet, outer).is_none() {
                return self.drop(DropReason::NoHeadroom, &packet.frame);
            }
            return self.merge_or_send(port, takes, packet, layers, headers);
        }
        // Inside of outer headers it is finished here: no NIC is told where it is, and over IPv6 the
        // outer checksum covers it.
        let over_v6 = outer == OuterHeaders::Vxlan6;
        let mut known = None;
        if let Checksum::Partial { start, offset } = packet.offload.checksum
            && (!takes.checksum || outer != OuterHeaders::None)
        {
            let (start, offset) = (usize::from(start), usize::from(offset));
            if over_v6 {
                known =
                    checksum::completed_sum(&packet.frame, start, offset).map(|sum| (start, sum));
            }
            if checksum::complete_partial(&mut packet.frame, start, offset).is_none() {
                return self.drop(DropReason::OffloadInvalid, &packet.frame);
            }
            packet.offload.checksum = Checksum::Unchecked;
        }
        if let Some(layers) = layers.filter(|_| over_v6)
            && outer_checksum::finish(&mut packet.frame, &layers, known).is_none()
        {
            return self.drop(DropReason::NoHeadroom, &packet.frame);
        }
        self.merge_or_send(port, takes, packet, layers, headers);
    }

    /// Sends a packet as its port takes it, if it does not become one with others of its flow.
    fn merge_or_send(
        &mut self,
        port: PortId,
        takes: Offloads,
        mut packet: Packet,
        layers: Option<Layers>,
        headers: &Headers,
    ) {
        if takes.tso
            && let (Some(coalescer), Some(layers), Net::Ip(ip)) =
                (&mut self.coalescer, layers, &headers.net)
            && layers.is_tcp
        {
            let exit = &mut self.exit;
            let emit = &mut |train| exit.send_train(train);
            match coalescer.offer(self.ingress, port, packet, layers, &ip.flow, emit) {
                Some(alone) => packet = alone,
                None => return,
            }
        }
        self.exit.send(self.ingress, port, packet, 1);
    }

    #[inline(never)]
    fn segments(&mut self, port: PortId, packet: Packet, gso: frame::Gso, layers: Option<Layers>) {
        let plan = layers.and_then(|layers| segment::Plan::new(&packet, gso, layers));
        let Some(plan) = plan else { return self.drop(DropReason::OffloadInvalid, &packet.frame) };
        self.exit.tally.made(plan.pieces() as u64 - 1);
        for piece in 0..plan.pieces() {
            let (len, invalid) = (plan.len(piece), DropReason::OffloadInvalid);
            self.exit.send_with(self.ingress, port, len, invalid, &packet.frame, |into| {
                plan.write(&packet, piece, into)
            });
        }
    }

    /// Sends a packet that is too large for `mtu` in fragments. The pieces of a superframe are
    /// packets of their own, each with its own fragments.
    #[inline(never)]
    fn fragments(&mut self, port: PortId, mut packet: Packet, layers: Layers, mtu: u16) {
        let Some(gso) = packet.offload.gso else {
            if let Checksum::Partial { start, offset } = packet.offload.checksum
                && checksum::complete_partial(&mut packet.frame, start.into(), offset.into())
                    .is_none()
            {
                return self.drop(DropReason::OffloadInvalid, &packet.frame);
            }
            self.fragments_of(port, &packet.frame, layers, mtu, 0);
            return;
        };
        // Each fragment has outer headers of its own.
        let Some(plan) = segment::Plan::new(&packet, gso, layers.without_outer()) else {
            return self.drop(DropReason::OffloadInvalid, &packet.frame);
        };
        self.exit.tally.made(plan.pieces() as u64 - 1);
        let mut number = 0;
        for piece in 0..plan.pieces() {
            let Some(mut frame) = self.pool.alloc() else {
                self.drop(DropReason::NoFrames, &packet.frame);
                continue;
            };
            let whole = frame.extend(plan.len(piece)).ok();
            match whole.and_then(|into| plan.write(&packet, piece, into)) {
                Some(()) => number += self.fragments_of(port, &frame, layers, mtu, number),
                None => self.drop(DropReason::OffloadInvalid, &packet.frame),
            }
        }
    }

    /// Sends the fragments of one packet and returns their number. The first is the `number`th of
    /// all that are made of the received packet.
    fn fragments_of(
        &mut self,
        port: PortId,
        bytes: &[u8],
        layers: Layers,
        mtu: u16,
        number: usize,
    ) -> usize {
        let Some(plan) = fragment::Plan::new(bytes, layers, mtu) else {
            self.drop(DropReason::TooBig, bytes);
            return 1;
        };
        self.exit.tally.made(plan.pieces() as u64 - 1);
        for piece in 0..plan.pieces() {
            let (len, invalid) = (plan.len(piece), DropReason::TooBig);
            self.exit.send_with(self.ingress, port, len, invalid, bytes, |into| {
                plan.write(bytes, piece, number + piece, into)
            });
        }
        plan.pieces()
    }

    fn drop(&mut self, reason: DropReason, frame: &[u8]) {
        self.exit.drop(self.ingress, 1, reason, frame);
    }
}

/// Edits a packet that leaves by a port of the segment.
#[inline(always)]
fn forward(packet: &mut Packet, decision: &Decision) -> Result<Option<Layers>, DropReason> {
    translate(packet, decision)?;
    match rewrite::decapsulate(packet, &decision.headers, decision.edits.ecn) {
        Some(()) => Ok(Layers::of(&decision.headers)),
        None => Err(DropReason::NoHeadroom),
    }
}

/// Gives a packet the endpoints that its session has.
#[inline(always)]
fn translate(packet: &mut Packet, decision: &Decision) -> Result<(), DropReason> {
    let Some(translation) = &decision.edits.translation else { return Ok(()) };
    let translated = translate::translate(packet, &decision.headers, translation);
    translated.ok_or(DropReason::TranslationCut)
}

/// Edits a packet that goes to another end of the segment; also returns the port that leads there.
#[inline(always)]
fn tunnel(
    packet: &mut Packet,
    decision: &Decision,
    vtep: &RemoteVtep,
) -> Result<(PortId, Option<Layers>), DropReason> {
    let Some(template) = &vtep.template else { return Err(DropReason::NextHopUnresolved) };
    match rewrite::tunnel(packet, &decision.headers, template) {
        Some(layers) => Ok((vtep.port, Some(layers))),
        None => Err(DropReason::NoHeadroom),
    }
}

/// Edits a packet that goes to the next hop.
#[inline(always)]
fn route(
    tables: &Tables,
    packet: &mut Packet,
    decision: &Decision,
    adjacency: AdjacencyId,
) -> Result<Layers, DropReason> {
    let (template, takes_a_hop) = match tables.adjacency(adjacency) {
        Some(Adjacency::Gateway { template, .. }) => (template, false),
        Some(
            Adjacency::Port { template, .. }
            | Adjacency::Bridged { template, .. }
            | Adjacency::Remote { template: Some(template), .. },
        ) => (template, true),
        _ => return Err(DropReason::NextHopUnresolved),
    };
    translate(packet, decision)?;
    let Decision { headers, edits, .. } = decision;
    if let Some(limit) = edits.mss_limit {
        rewrite::lower_mss(packet, headers, limit);
    }
    let flow = decision.flow().ok_or(DropReason::NoHeadroom)?;
    rewrite::route(packet, headers, flow, edits.ecn, template, takes_a_hop)
        .ok_or(DropReason::NoHeadroom)
}

//! Right of the verdict: TCP segments that came from the NIC become one superframe again, for a port
//! that takes superframes.
//!
//! Enters: packets that are ready to leave, in the order of their arrival; the beginning of a turn, and the
//! end of a batch. Leaves: the same packets, those of one flow that follow one another merged into trains. A train
//! ends when a segment does not continue it, when the sender asks for delivery, or with the batch. A busy
//! worker gets batches of one segment, so the train of a flow that streams stays for longer: `pace` says
//! which, and until when.
//!
//! | file | holds |
//! |---|---|
//! | `segment` | the fields of a segment by which it can be merged |
//! | `train`   | segments that are becoming one superframe |
//! | `pace`    | how fast the segments of a flow follow one another |
//!
//! A merged train must cut into exactly the segments that it was made of, so whatever is not in the
//! sequence must be equal: Ethernet, TTL, DSCP, ECN, DF, acknowledgement, window, options. Checksums
//! are verified here, as the merged packet's is made anew: a corrupted segment leaves as it came, for
//! its receiver to refuse.

mod pace;
mod segment;
mod train;

use frame::Packet;

use super::flow::FlowKey;
use super::rewrite::Layers;
use crate::rate::Nanos;
use crate::tables::{Epoch, PortId};
use pace::Pace;
use segment::Segment;
pub(crate) use train::Train;

/// Flows that are merged at once: VPP's figure, and about what a batch of 32 can mix with profit.
const STREAMS: usize = 16;

/// The flows that one worker merges.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    streams: [Option<Stream>; STREAMS],
    /// The place of the flow that is forgotten next, where all have a train.
    next: usize,
    /// When the turn began.
    now: Nanos,
    /// The tables by which trains were begun.
    epoch: Epoch,
    /// When the first of the trains that stay behind their batch is to leave.
    due: Option<Nanos>,
}

/// A TCP flow to a port.
#[derive(Debug)]
struct Stream {
    port: PortId,
    flow: FlowKey,
    /// Where the IP header lies, and TCP's.
    l3: usize,
    l4: usize,
    pace: Pace,
    train: Option<Train>,
}

impl Coalescer {
    /// Begins a turn. Trains leave that had stayed for long enough when the former one began. All leave that
    /// other tables have begun.
    pub(crate) fn turn(&mut self, epoch: Epoch, now: Nanos, emit: &mut impl FnMut(Train)) {
        if self.epoch != epoch {
            (self.epoch, self.due) = (epoch, None);
            self.streams
                .iter_mut()
                .flatten()
                .filter_map(|stream| stream.train.take())
                .for_each(emit);
        } else if self.due.is_some_and(|due| due <= self.now) {
            self.end_batch(false, emit);
        }
        self.now = now;
    }

    /// Takes a packet in, or gives it back to be sent alone. `emit` gets every train that ended
    /// thereby; it is to be sent first.
    pub(crate) fn offer(
        &mut self,
        ingress: PortId,
        port: PortId,
        packet: Packet,
        layers: Layers,
        key: &FlowKey,
        emit: &mut impl FnMut(Train),
    ) -> Option<Packet> {
        let Some(segment) = Segment::of(&packet, layers) else { return Some(packet) };
        let now = self.now;
        let is_known = |stream: &Stream| {
            (stream.port, stream.l3, stream.l4) == (port, layers.l3, layers.l4)
                && stream.flow == *key
        };
        let known = self.streams.iter_mut().flatten().find(|stream| is_known(stream));
        if let Some(stream) = known {
            stream.pace.note(&segment, now);
            if let Some(train) = &mut stream.train {
                let taken = train.append(&packet, &segment);
                if !taken || train.is_complete() {
                    stream.train.take().into_iter().for_each(&mut *emit);
                }
                if taken {
                    return None;
                }
            }
            if !segment.begins_a_train(&packet) {
                return Some(packet);
            }
            stream.pace.begin(now);
            stream.train = Some(Train::new(ingress, port, packet, segment));
            return None;
        }
        if !segment.begins_a_train(&packet) {
            return Some(packet);
        }
        let pace = Pace::new(&segment, now);
        let train = Some(Train::new(ingress, port, packet, segment));
        let stream = Stream { port, flow: *key, l3: layers.l3, l4: layers.l4, pace, train };
        let former = self.place().replace(stream);
        former.and_then(|former| former.train).into_iter().for_each(emit);
        None
    }

    /// Ends the batch: trains leave, but for those of flows that stream. If more packets of the NIC are known
    /// to wait, those of several segments stay, too.
    pub(crate) fn end_batch(&mut self, more: bool, emit: &mut impl FnMut(Train)) {
        self.due = None;
        for stream in self.streams.iter_mut().flatten() {
            let Some(train) = &stream.train else { continue };
            let until = stream.pace.stays_until(more && train.has_several());
            match until.filter(|until| self.now < *until) {
                Some(until) => self.due = Some(self.due.map_or(until, |due| due.min(until))),
                None => {
                    stream.pace.cut_off(self.now);
                    stream.train.take().into_iter().for_each(&mut *emit);
                }
            }
        }
    }

    /// When the first of the trains that stay is to leave; `None` if none stays.
    pub(crate) fn due(&self) -> Option<Nanos> {
        self.due
    }

    /// Takes out the trains to a port, and what is known of flows to it.
    pub(crate) fn forget(&mut self, port: PortId, emit: &mut impl FnMut(Train)) {
        for place in &mut self.streams {
            let stream = place.take_if(|stream| stream.port == port);
            stream.and_then(|stream| stream.train).into_iter().for_each(&mut *emit);
        }
    }

    /// A free place, or that of the flow without a train that was seen longest ago, or the next in turn.
    fn place(&mut self) -> &mut Option<Stream> {
        let age = |stream: &Option<Stream>| match stream {
            None => Some(Nanos::default()),
            Some(stream) => stream.train.is_none().then_some(stream.pace.latest()),
        };
        let idle = self.streams.iter().enumerate();
        let idle = idle.filter_map(|(at, stream)| Some((age(stream)?, at))).min();
        let at = idle.map_or_else(
            || {
                self.next = (self.next + 1) % STREAMS;
                self.next
            },
            |(_, at)| at,
        );
        // `at` is below STREAMS either way; the first place satisfies the compiler.
        let [first, rest @ ..] = &mut self.streams;
        match at.checked_sub(1) {
            Some(at) => rest.get_mut(at).unwrap_or(first),
            None => first,
        }
    }
}

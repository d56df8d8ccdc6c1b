//! Runs a script and checks what must hold after each packet.
//!
//! - Nothing panics.
//! - The accounting closes: received + made = sent + dropped, and what the egress saw is what was
//!   counted.
//! - Every frame is back in the pool.
//! - `trace` tells what `process` does: the same packets by the same ports, byte for byte. That another
//!   session holds the tuple of one that begins shows when it is to be put into the table, which no trace does.
//! - Nothing shorter than an Ethernet header leaves.
//!
//! Then the same packets once more in one batch, at whose end the accounting closes and the frames are back.

use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::session::{Header, SessionTable};
use dataplane::tables::{Fdb, PortId, Tables};
use dataplane::{Dataplane, DropReason, Egress, Millis};
use frame::{Packet, Pool};

use crate::{live, script};

/// One for the packet, copies for the largest segment's flood, and every train that may be open.
const FRAMES: u32 = 32;

thread_local! {
    static POOL: Pool = Pool::new(FRAMES);
}

/// A session table that no script fills: that there is no room is no trace's to foretell.
#[must_use]
pub fn sessions() -> Arc<SessionTable> {
    let header = Header { boot_id: 1, seed: 2, buckets: 256 };
    Arc::new(SessionTable::on_heap(&header).expect("two buckets at least"))
}

/// Injects the packets of a file.
///
/// # Panics
/// If something does not hold that must.
pub fn walk(file: &[u8]) {
    let pool = POOL.with(Pool::clone);
    let tables = live::tables();
    let counters = Arc::new(Counters::new());
    let mut dataplane =
        Dataplane::new(Fdb::new(8, 3000), pool.clone(), Arc::clone(&counters), sessions());
    let mut now = Millis(0);
    for (nth, injected) in script::read(file).iter().enumerate() {
        now.0 += u64::from(injected.pause) * 100;
        let ingress = PortId(u16::from(injected.ingress % live::PORTS));
        let bytes = injected.frame();
        let packet = || {
            let mut frame = pool.alloc().expect("all frames are back");
            frame.extend_from_slice(&bytes).expect("a script's frame fits");
            Packet { frame, offload: injected.offload }
        };

        let told = dataplane.trace(tables, &pool, ingress, packet(), now);
        assert_eq!(pool.available(), pool.total(), "trace of packet {nth} kept a frame");

        let mut egress = Recorder { refuses: injected.refuse, attempts: Vec::new() };
        let had_ports_used = || counters.drops(ingress, DropReason::SessionPortsUsed);
        let (before, ports_used) = (counters.accounting(), had_ports_used());
        dataplane.process(tables, ingress, packet(), now, &mut egress);
        end_batch(&mut dataplane, tables, &mut egress);
        assert_eq!(pool.available(), pool.total(), "packet {nth} kept a frame");

        let after = counters.accounting();
        assert_eq!(after.received, before.received + 1);
        assert_eq!(
            after.received + after.made,
            after.sent + after.dropped,
            "the accounting does not close after packet {nth}: {:?}",
            told.verdict
        );
        let taken = if injected.refuse { 0 } else { egress.attempts.len() as u64 };
        assert!(after.sent - before.sent <= taken, "more was counted than left");
        if had_ports_used() == ports_used {
            assert_eq!(egress.attempts, told.leaves, "{:?} and its trace differ", told.verdict);
        }
        for (port, bytes) in &egress.attempts {
            assert!(bytes.len() >= 14, "{} bytes leave by {port}", bytes.len());
            assert!(tables.port(*port).is_some(), "{port} is not attached");
        }
    }
    in_one_batch(file, &pool);
}

/// The same packets without a pause between them: those that follow one another are merged.
fn in_one_batch(file: &[u8], pool: &Pool) {
    let tables = live::tables();
    let counters = Arc::new(Counters::new());
    let mut dataplane =
        Dataplane::new(Fdb::new(8, 3000), pool.clone(), Arc::clone(&counters), sessions());
    let mut egress = Recorder { refuses: false, attempts: Vec::new() };
    for injected in script::read(file) {
        let ingress = PortId(u16::from(injected.ingress % live::PORTS));
        let mut frame = pool.alloc().expect("trains leave a frame free");
        frame.extend_from_slice(&injected.frame()).expect("a script's frame fits");
        let packet = Packet { frame, offload: injected.offload };
        egress.refuses = injected.refuse;
        dataplane.process(tables, ingress, packet, Millis(0), &mut egress);
    }
    end_batch(&mut dataplane, tables, &mut egress);
    assert_eq!(pool.available(), pool.total(), "the batch kept a frame");
    let all = counters.accounting();
    assert_eq!(all.received + all.made, all.sent + all.dropped, "the batch's accounting is open");
}

/// Ends a batch, and lets time pass until nothing stays for more of its flow.
fn end_batch(dataplane: &mut Dataplane, tables: &Tables, egress: &mut Recorder) {
    dataplane.end_batch(tables, false, egress);
    while let Some(due) = dataplane.due().filter(|_| dataplane.merges()) {
        dataplane.turn(tables, due, egress);
    }
}

/// Keeps what it is offered, and takes it or not.
struct Recorder {
    refuses: bool,
    attempts: Vec<(PortId, Vec<u8>)>,
}

impl Recorder {
    fn end(&self) -> Result<(), DropReason> {
        if self.refuses { Err(DropReason::PortGone) } else { Ok(()) }
    }
}

impl Egress for Recorder {
    fn send(&mut self, port: PortId, packet: Packet) -> Result<(), DropReason> {
        self.attempts.push((port, packet.frame.to_vec()));
        self.end()
    }

    fn send_with(
        &mut self,
        port: PortId,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.attempts.push((port, bytes));
        self.end()
    }
}

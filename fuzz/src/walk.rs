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
//!
//! Dataplanes outlive their scripts, as most of what they are made of is large and stays empty: what a script
//! leaves is forgotten before the next one, which therefore ends alike whatever ran before it.

use std::cell::RefCell;
use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::session::{Header, PortSessions, SessionTable};
use dataplane::tables::{Fdb, PortId, Tables};
use dataplane::{Dataplane, DropReason, Egress, Millis};
use frame::{Packet, Pool};

use crate::script::Injected;
use crate::{live, script};

/// One for the packet, copies for the largest segment's flood, and every train that may be open.
const FRAMES: u32 = 32;
/// Between two scripts: what a worker learned of MACs, fragments and answers is as good as forgotten.
const PAUSE_MS: u64 = 10_000;

thread_local! {
    static POOL: Pool = Pool::new(FRAMES);
    static ONE_BY_ONE: RefCell<Worker> = RefCell::new(Worker::new());
    static IN_ONE_BATCH: RefCell<Worker> = RefCell::new(Worker::new());
}

/// A session table that no script fills: that there is no room is no trace's to foretell. A port may have
/// three times as many unanswered sessions as a script has packets.
#[must_use]
pub fn sessions() -> Arc<SessionTable> {
    let header = Header { boot_id: 1, seed: 2, buckets: 128 };
    Arc::new(SessionTable::on_heap(&header).expect("two buckets at least"))
}

/// A dataplane, and the time there.
struct Worker {
    dataplane: Dataplane,
    counters: Arc<Counters>,
    now: Millis,
}

impl Worker {
    fn new() -> Self {
        let (pool, counters) = (POOL.with(Pool::clone), Arc::new(Counters::new()));
        let dataplane = Dataplane::new(Fdb::new(8, 3000), pool, Arc::clone(&counters), sessions());
        Self { dataplane, counters, now: Millis(0) }
    }

    /// Forgets what the script left.
    fn forget(&mut self) {
        self.now.0 += PAUSE_MS;
        for port in (0..live::PORTS).map(u16::from).map(PortId) {
            self.dataplane.forget_port(port);
            let sessions = self.dataplane.sessions();
            let PortSessions { embryonic, established, closing, .. } = sessions.of_port(port);
            // That reads the whole table.
            if embryonic + established + closing > 0 {
                sessions.forget_port(port);
            }
        }
        self.dataplane.take_path_mtus().for_each(drop);
        let left = self.dataplane.sessions().events().map(|one| {
            one.created - one.expired - one.evicted - one.reopened - one.closed
        });
        assert_eq!(left, [0; 2], "a session of no port is left");
    }
}

/// Injects the packets of a file.
///
/// # Panics
/// If something does not hold that must.
pub fn walk(file: &[u8]) {
    let packets = script::read(file);
    ONE_BY_ONE.with_borrow_mut(|worker| one_by_one(&packets, worker));
    IN_ONE_BATCH.with_borrow_mut(|worker| in_one_batch(&packets, worker));
}

fn one_by_one(packets: &[Injected], worker: &mut Worker) {
    let pool = POOL.with(Pool::clone);
    let tables = live::tables();
    let Worker { dataplane, counters, now } = worker;
    for (nth, injected) in packets.iter().enumerate() {
        now.0 += u64::from(injected.pause) * 100;
        let ingress = PortId(u16::from(injected.ingress % live::PORTS));
        let bytes = injected.frame();
        let packet = || {
            let mut frame = pool.alloc().expect("all frames are back");
            frame.extend_from_slice(&bytes).expect("a script's frame fits");
            Packet { frame, offload: injected.offload }
        };

        let told = dataplane.trace(tables, &pool, ingress, packet(), *now);
        assert_eq!(pool.available(), pool.total(), "trace of packet {nth} kept a frame");

        let mut egress = Recorder { refuses: injected.refuse, attempts: Vec::new() };
        let had_ports_used = || counters.drops(ingress, DropReason::SessionPortsUsed);
        let (before, ports_used) = (counters.accounting(), had_ports_used());
        dataplane.process(tables, ingress, packet(), *now, &mut egress);
        end_batch(dataplane, tables, &mut egress);
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
    worker.forget();
}

/// The same packets without a pause between them: those that follow one another are merged.
fn in_one_batch(packets: &[Injected], worker: &mut Worker) {
    let pool = POOL.with(Pool::clone);
    let tables = live::tables();
    let Worker { dataplane, counters, now } = worker;
    let mut egress = Recorder { refuses: false, attempts: Vec::new() };
    for injected in packets {
        let ingress = PortId(u16::from(injected.ingress % live::PORTS));
        let mut frame = pool.alloc().expect("trains leave a frame free");
        frame.extend_from_slice(&injected.frame()).expect("a script's frame fits");
        let packet = Packet { frame, offload: injected.offload };
        egress.refuses = injected.refuse;
        dataplane.process(tables, ingress, packet, *now, &mut egress);
    }
    end_batch(dataplane, tables, &mut egress);
    assert_eq!(pool.available(), pool.total(), "the batch kept a frame");
    let all = counters.accounting();
    assert_eq!(all.received + all.made, all.sent + all.dropped, "the batch's accounting is open");
    worker.forget();
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

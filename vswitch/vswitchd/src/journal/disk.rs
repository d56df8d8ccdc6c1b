//! The thread that waits for the disk.
//!
//! Enters: orders, from the control thread, which waits for none of them. Leaves: a report for each,
//! and a bell that can be waited for beside everything else. Lines that were written while one sync
//! was under way are on disk with the next: as many as wait cost one sync.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use controlplane::model::Edit;
use rustix::event::{EventfdFlags, eventfd};
use worker::Confine;

use super::JournalError;
use super::file::{self, Lines, failed};
use crate::ends_process::EndsProcess;
use crate::sandbox::{Sandbox, ThreadKind};

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Have the journal's lines up to this number on disk.
    Sync(u64),
    /// Write a snapshot beside the journal.
    WriteFresh(Vec<Edit>),
    /// Put it in the journal's place, with what was added to it. `keep`: the journal is damaged, and
    /// stays under another name.
    Replace { keep: bool },
    /// See to it that there is room.
    MakeRoom,
}

/// What became of an order.
#[derive(Debug)]
pub(super) enum Report {
    /// Lines up to this number are on disk, or may not be.
    Synced(u64, Result<(), JournalError>),
    /// The snapshot is on disk.
    WrittenFresh(Result<Lines, JournalError>),
    /// It is the journal; the name of a damaged one that was there before.
    Replaced(Result<Option<PathBuf>, JournalError>),
    /// There is room.
    Room(Result<(), JournalError>),
}

/// The thread, as the control thread has it. It ends when this is dropped, as soon as the disk lets it.
#[derive(Debug)]
pub(super) struct Disk {
    orders: Sender<Order>,
    reports: Receiver<Report>,
    bell: Arc<OwnedFd>,
}

impl Disk {
    /// Starts the thread, for a journal to which lines can be added, if there is one.
    /// The thread is confined before it does anything.
    pub(super) fn start(dir: &Path, journal: Option<File>, sandbox: &Sandbox) -> io::Result<Self> {
        let (orders, to_do) = mpsc::channel();
        let (reporter, reports) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let waiter = Waiter {
            dir: dir.to_owned(),
            journal,
            fresh: None,
            aside: None,
            is_name_on_disk: true,
            is_lost: false,
            reporter,
            bell: Arc::clone(&bell),
        };
        let confine = sandbox.confining(ThreadKind::Journal);
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || waiter.run(&to_do, &confine))?;
        Ok(Self { orders, reports, bell })
    }

    pub(super) fn order(&self, order: Order) {
        // The thread ends after its channel alone.
        let _ = self.orders.send(order);
    }

    /// Readable when there are reports.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Everything that was reported so far.
    pub(super) fn reports(&self) -> Vec<Report> {
        // First the bell: what is reported after that rings again.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.reports.try_iter().collect()
    }

    /// The next report, or `None` if none comes in time.
    pub(super) fn wait(&self, patience: Duration) -> Option<Report> {
        self.reports.recv_timeout(patience).ok()
    }
}

/// What the thread has.
struct Waiter {
    dir: PathBuf,
    journal: Option<File>,
    fresh: Option<File>,
    /// Name of a damaged journal that is to be replaced.
    aside: Option<PathBuf>,
    /// The directory has the journal by its name, also after a crash of the machine.
    is_name_on_disk: bool,
    /// A sync of the journal has failed. The next one would succeed and prove nothing.
    is_lost: bool,
    reporter: Sender<Report>,
    bell: Arc<OwnedFd>,
}

impl Waiter {
    fn run(mut self, to_do: &Receiver<Order>, confine: &Confine) {
        let _guard = EndsProcess;
        confine().expect("the kernel took this filter's like when it was asked");
        while let Ok(first) = to_do.recv() {
            let orders = std::iter::once(first).chain(to_do.try_iter()).collect();
            for order in together(orders) {
                let report = self.carry_out(order);
                if self.reporter.send(report).is_err() {
                    return;
                }
                // Fails only if it has rung very often, and was not heard.
                let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Report {
        match order {
            Order::Sync(up_to) => {
                let synced = self.sync();
                self.is_lost |= synced.is_err();
                Report::Synced(up_to, synced)
            }
            Order::WriteFresh(snapshot) => {
                self.fresh = None;
                Report::WrittenFresh(self.write_fresh(&snapshot))
            }
            Order::Replace { keep } => Report::Replaced(self.replace(keep)),
            Order::MakeRoom => Report::Room(file::make_room(&self.dir)),
        }
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let path = self.dir.join(file::NAME);
        let Some(journal) = self.journal.as_ref().filter(|_| !self.is_lost) else {
            return Err(JournalError::Lost(path));
        };
        failpoint::hit("journal-sync")
            .map_err(io::Error::from)
            .and_then(|()| journal.sync_data())
            .map_err(failed("sync", &path))?;
        if !self.is_name_on_disk {
            file::sync_dir(&self.dir).map_err(failed("sync", &self.dir))?;
            self.is_name_on_disk = true;
        }
        Ok(())
    }

    fn write_fresh(&mut self, snapshot: &[Edit]) -> Result<Lines, JournalError> {
        let lines = file::write_fresh(&self.dir, snapshot)?;
        let clone = lines.file.try_clone();
        self.fresh = Some(clone.map_err(failed("write", &self.dir))?);
        Ok(lines)
    }

    fn replace(&mut self, keep: bool) -> Result<Option<PathBuf>, JournalError> {
        let path = self.dir.join(file::NAME);
        let Some(fresh) = self.fresh.take() else { return Err(JournalError::Lost(path)) };
        // What was added to it while it was written.
        failpoint::hit("journal-replace")
            .map_err(io::Error::from)
            .and_then(|()| fresh.sync_all())
            .map_err(failed("sync", &path))?;
        if keep && self.aside.is_none() {
            self.aside = file::set_aside(&self.dir)?;
        }
        file::put_in_place(&self.dir)?;
        (self.journal, self.is_lost, self.is_name_on_disk) = (Some(fresh), false, false);
        Ok(self.aside.take())
    }
}

/// The same with one sync for all that wait for one in a row.
fn together(mut orders: Vec<Order>) -> Vec<Order> {
    orders.dedup_by(|later, earlier| match (later, earlier) {
        (Order::Sync(later), Order::Sync(earlier)) => {
            *earlier = (*earlier).max(*later);
            true
        }
        _ => false,
    });
    orders
}

#[cfg(test)]
mod tests {
    use super::{Order, together};

    #[test]
    fn who_waits_at_the_same_time_shares_a_sync() {
        let replace = Order::Replace { keep: false };
        let orders = [
            Order::Sync(1),
            Order::Sync(2),
            replace,
            Order::Sync(3),
            Order::Sync(5),
            Order::Sync(4),
        ];
        let left = together(orders.into());
        assert!(
            matches!(left[..], [Order::Sync(2), Order::Replace { .. }, Order::Sync(5)]),
            "{left:?}"
        );
    }
}

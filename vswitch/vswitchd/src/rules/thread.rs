//! The thread that waits for `nft`.
//!
//! Enters: orders, from the control thread, which waits for none of them. Leaves: a report for each, and a bell
//! that can be waited for beside everything else. Orders that come while `nft` runs are put together: of several
//! tables the newest alone is set, several looks are one. What a client waits for comes first.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use controlplane::desired::NftTable;
use worker::Confine;

use super::table::{NftRules, Observed};
use crate::ends_process::EndsProcess;
use crate::error::{Result, chain};

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Have this table in force, or none; it has a number.
    Set(u64, Option<NftTable>),
    /// Compare the kernel's table with the one that was set last, and put that right; the program that may have
    /// changed it.
    Settle(Option<String>),
    /// Look again for firewalls that drop what pods send.
    LookForDroppers,
    /// See what the kernel shows of the table.
    Look(Look),
}

/// A look at the table in the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) number: u64,
    /// It compares all of it.
    pub(super) compares: bool,
}

/// What became of an order.
#[derive(Debug)]
pub enum Report {
    /// The table of this number is in force, with all before it; or why not.
    Set {
        /// Its number.
        number: u64,
        /// Why it is not.
        outcome: std::result::Result<(), String>,
        /// What was set last with success.
        in_force: Option<NftTable>,
    },
    /// The kernel's table was compared.
    Settled {
        /// The program that may have changed it.
        by: Option<String>,
        /// Whether it had to be put right; or why it could not.
        outcome: std::result::Result<bool, String>,
    },
    /// The table was looked at.
    Looked {
        /// The look's number.
        number: u64,
        /// What there was to see, if there is a table; or why nothing is known.
        seen: std::result::Result<Option<Observed>, String>,
        /// Whether all of it is as it was set, if it was compared.
        is_in_force: Option<bool>,
    },
}

/// What the thread has.
pub(super) struct Waiter {
    pub(super) rules: NftRules,
    pub(super) reporter: Sender<Report>,
    pub(super) bell: Arc<OwnedFd>,
}

impl Waiter {
    pub(super) fn run(mut self, orders: &Receiver<Order>, confine: &Confine) {
        let _guard = EndsProcess;
        confine().expect("the kernel took this filter's like when it was asked");
        let mut to_do = ToDo::default();
        loop {
            orders.try_iter().for_each(|order| to_do.add(order));
            let Some(order) = to_do.next() else {
                match orders.recv() {
                    Ok(order) => to_do.add(order),
                    Err(_) => return,
                }
                continue;
            };
            let Some(report) = self.carry_out(order) else { continue };
            if self.reporter.send(report).is_err() {
                return;
            }
            // Fails only if it has rung very often, and was not heard.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }

    fn carry_out(&mut self, order: Order) -> Option<Report> {
        match order {
            Order::Set(number, table) => {
                let outcome = told(self.rules.set(table.as_ref()));
                let in_force = self.rules.set_last().cloned();
                Some(Report::Set { number, outcome, in_force })
            }
            Order::Settle(by) => Some(Report::Settled { by, outcome: told(self.rules.settle()) }),
            Order::LookForDroppers => {
                self.rules.look_for_droppers();
                None
            }
            Order::Look(Look { number, compares }) => {
                let is_in_force = compares.then(|| self.rules.is_in_force().ok()).flatten();
                Some(Report::Looked { number, seen: told(self.rules.observe()), is_in_force })
            }
        }
    }
}

fn told<T>(outcome: Result<T>) -> std::result::Result<T, String> {
    outcome.map_err(|error| chain(&error))
}

/// Orders that wait.
#[derive(Debug, Default)]
struct ToDo {
    table: Option<(u64, Option<NftTable>)>,
    settle: Option<Option<String>>,
    looks_for_droppers: bool,
    look: Option<Look>,
}

impl ToDo {
    fn add(&mut self, order: Order) {
        match order {
            Order::Set(number, table) => self.table = Some((number, table)),
            // The first to change something is named.
            Order::Settle(by) => {
                let known = self.settle.get_or_insert(None);
                *known = known.take().or(by);
            }
            Order::LookForDroppers => self.looks_for_droppers = true,
            Order::Look(Look { number, compares }) => {
                let compares = compares || self.look.is_some_and(|look| look.compares);
                self.look = Some(Look { number, compares });
            }
        }
    }

    fn next(&mut self) -> Option<Order> {
        if let Some((number, table)) = self.table.take() {
            return Some(Order::Set(number, table));
        }
        if let Some(by) = self.settle.take() {
            return Some(Order::Settle(by));
        }
        if std::mem::take(&mut self.looks_for_droppers) {
            return Some(Order::LookForDroppers);
        }
        self.look.take().map(Order::Look)
    }
}

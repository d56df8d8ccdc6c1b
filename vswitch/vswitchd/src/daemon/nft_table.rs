//! The nftables table: what is ordered of it, and what becomes of that.
//!
//! Enters: times to compare it, and reports of the thread that runs `nft`, from `control`. Leaves: orders; a control
//! plane that knows what is in force; a count of what was put right; lines in the log, and a sentence in `status`.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use controlplane::desired::translation::difference;
use controlplane::desired::{NftTable, Translations};
use controlplane::repairs::Part;

use super::{Daemon, log};
use crate::rules::{InKernel, Observed, Report};

impl Daemon {
    /// Readable when `nft` has ended.
    #[must_use]
    pub fn rules_bell(&self) -> BorrowedFd<'_> {
        self.node.rules.bell()
    }

    /// Has the table compared with the one that was set.
    pub(super) fn settle_nft_table(&mut self, by: Option<String>, now: Instant) {
        if self.repairs.is_allowed(Part::NftTable, self.millis(now)) {
            self.node.rules.settle(by);
        }
    }

    /// `nft` has ended.
    pub fn on_rules_event(&mut self) {
        for report in self.node.rules.reports() {
            match report {
                Report::Set { number, outcome, in_force } => {
                    self.nft_table_was_set(number, outcome, in_force);
                }
                Report::Settled { by, outcome } => self.nft_table_was_compared(by, outcome),
                Report::Looked { seen: Ok(Some(seen)), .. } => self.log_rule_notes(seen),
                Report::Looked { .. } => {}
            }
        }
        if let Err(refusal) = self.node.forget_outdated_flows() {
            tracing::error!("{}", refusal.message);
        }
        self.tell_of_reload();
    }

    fn nft_table_was_set(
        &mut self,
        number: u64,
        outcome: Result<(), String>,
        in_force: Option<NftTable>,
    ) {
        match outcome {
            Ok(()) => self.repairs.is_fine(Part::NftTable),
            Err(why) => {
                self.is_broken(Part::NftTable, &why);
                // Otherwise a later one is on its way. It is ordered again with the next change, or when all is
                // compared.
                if number == self.node.rules.ordered() {
                    self.plane.nft_table_is(in_force);
                }
            }
        }
    }

    fn nft_table_was_compared(&mut self, by: Option<String>, outcome: Result<bool, String>) {
        match outcome {
            // The table that was set last may not be the one that is wanted.
            Ok(false) if self.plane.is_nft_table_due() => {}
            Ok(false) => self.repairs.is_fine(Part::NftTable),
            Ok(true) => {
                let (what, now) = ("it was removed or changed", self.millis(Instant::now()));
                log(&self.repairs.repaired(Part::NftTable, what, by.as_deref(), now));
                // What came while it was gone is tracked untranslated.
                let all = difference(&self.plane.translations(), &Translations::new());
                if let Err(refusal) = self.node.forget_flows_now(&all, &[]) {
                    tracing::warn!("{}", refusal.message);
                }
            }
            Err(why) => self.is_broken(Part::NftTable, &why),
        }
    }

    /// Logs what keeps pods from the world, once.
    fn log_rule_notes(&mut self, seen: Observed) {
        for problem in seen.problems.iter().filter(|note| !self.known_rule_notes.contains(note)) {
            tracing::warn!("{problem}");
        }
        self.known_rule_notes = seen.problems;
    }

    /// A reload is over when its table is in force.
    pub(super) fn tell_of_reload(&mut self) {
        let Some(table) = self.reloading else { return };
        match self.node.rules.is_in_kernel(table) {
            InKernel::NotYet => return,
            InKernel::Yes => tracing::info!("the configuration is reloaded"),
            InKernel::Failed(why) => tracing::error!(
                "the configuration is reloaded, but not in force as a whole: {why}; this is tried again every half a minute"
            ),
        }
        self.reloading = None;
    }
}

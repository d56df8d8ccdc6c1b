//! The nftables table `inet vswitch` in the kernel.
//!
//! Enters: the table that the control plane wants. Leaves: that table in place of the one that was
//! there, by way of `nft`; no other rules are changed. A table that an earlier daemon left is
//! replaced in the same transaction, one that another program made is never touched. Where the two differ by
//! elements of maps and sets, these alone are added and deleted: one run of `nft`, of some 10 ms.
//!
//! To replace a table takes four runs, some 45 ms. A start that finds a former daemon's table leaves it in force
//! until pods' packets are forwarded again. Everything here waits for `nft`, which only the thread of
//! [`super::Rules`] may do, and a start or an end.

use controlplane::desired::NftTable;
use controlplane::desired::nft_table::TABLE;

use super::nft::{self, Owner};
use super::program::Program;
use crate::error::{Error, Result};
use crate::firewall;

/// What was set last.
#[derive(Debug)]
pub(super) struct NftRules {
    program: Program,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unset,
    /// A former daemon's table is in force.
    LeftByFormer,
    /// A former daemon's table is in force still, and this one is to take its place.
    Awaited(NftTable),
    Set(SetTable),
}

#[derive(Debug)]
struct SetTable {
    table: NftTable,
    /// As the kernel lists it, without counters and elements: what it lists later is compared with this.
    frame: String,
    /// Others' chains that drop what they do not accept, when the table was set.
    droppers: Vec<String>,
}

/// What the kernel shows of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Connections to the world that were masqueraded since the rules were set; `None` if the rules are
    /// gone.
    pub connections: Option<u64>,
    /// What keeps pods' packets from the world.
    pub problems: Vec<String>,
}

impl NftRules {
    /// Nothing is set. Where a former daemon's table is in force, what is set first waits for the first `settle`.
    #[must_use]
    pub(super) fn new(program: Program, is_left_by_former: bool) -> Self {
        let state = if is_left_by_former { State::LeftByFormer } else { State::Unset };
        Self { program, state }
    }

    /// The table that was set last, or is to take a former daemon's place.
    #[must_use]
    pub(super) fn set_last(&self) -> Option<&NftTable> {
        match &self.state {
            State::Unset | State::LeftByFormer => None,
            State::Awaited(table) | State::Set(SetTable { table, .. }) => Some(table),
        }
    }

    /// Puts the table in place of the one that is there, or removes ours.
    ///
    /// # Errors
    /// If `nft` is missing, the kernel refuses, or the table is another program's; the old rules are in
    /// force then.
    pub(super) fn set(&mut self, table: Option<&NftTable>) -> Result<()> {
        let Some(table) = table else { return self.remove() };
        if matches!(self.state, State::LeftByFormer) {
            self.state = State::Awaited(table.clone());
            return Ok(());
        }
        if let State::Set(set) = &mut self.state
            && let Some(script) = table.script_from(&set.table)
        {
            let changed = if script.is_empty() { Ok(()) } else { self.program.change(&script) };
            match changed {
                Ok(()) => {
                    set.table = table.clone();
                    return Ok(());
                }
                // To replace it would take longer still.
                Err(error @ Error::NftTooSlow(_)) => return Err(error),
                // Another program has changed the table.
                Err(_) => {}
            }
        }
        self.replace(table)
    }

    fn replace(&mut self, table: &NftTable) -> Result<()> {
        if let Owner::Other(why) = nft::owner(&self.program, table.host_interface())? {
            return Err(Error::Masquerade(format!(
                "the nftables {TABLE} {why}; rename or remove it, or set host.masquerade = false"
            )));
        }
        self.program.change(&table.script())?;
        // The table is set by now: without a listing the next comparison sets it once more. The
        // droppers are looked for here, not at each request: on a node with many services it takes
        // nft a tenth of a second.
        self.state = State::Set(SetTable {
            table: table.clone(),
            frame: nft::listed(&self.program).map(|listed| listed.frame).unwrap_or_default(),
            droppers: nft::forward_droppers(&self.program.ask("list chains\n").unwrap_or_default()),
        });
        Ok(())
    }

    /// Sets the table again if the kernel has another, or none; true if that was so.
    ///
    /// # Errors
    /// As for `set`.
    pub(super) fn settle(&mut self) -> Result<bool> {
        let (table, is_repair) = match &self.state {
            State::Unset | State::LeftByFormer => return Ok(false),
            State::Awaited(table) => (table.clone(), false),
            State::Set(set) if set.is_in_force(&self.program)? => return Ok(false),
            State::Set(set) => (set.table.clone(), true),
        };
        self.replace(&table).map(|()| is_repair)
    }

    /// Whether the kernel has the table that was set last.
    ///
    /// # Errors
    /// If `nft` takes too long.
    pub(super) fn is_in_force(&self) -> Result<bool> {
        match &self.state {
            State::Set(set) => set.is_in_force(&self.program),
            State::Unset | State::LeftByFormer | State::Awaited(_) => Ok(false),
        }
    }

    /// Looks again for firewalls that drop what pods send.
    pub(super) fn look_for_droppers(&mut self) {
        if let State::Set(set) = &mut self.state
            && let Ok(chains) = self.program.ask("list chains\n")
        {
            set.droppers = nft::forward_droppers(&chains);
        }
    }

    /// Asks the kernel; `None` if nothing was set.
    ///
    /// # Errors
    /// If `nft` fails, other than by finding no table.
    pub(super) fn observe(&self) -> Result<Option<Observed>> {
        let State::Set(set) = &self.state else { return Ok(None) };
        let connections = match self.program.ask("list chain inet vswitch postrouting\n") {
            Ok(listed) => Some(nft::counted(&listed)),
            Err(error) if nft::is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        let host = set.table.host_interface();
        let problem = |chain: &String| {
            let drops = firewall::drops(chain, host);
            format!(
                "{drops}; once it does, or does not drop any more, `systemctl reload vswitchd` has it looked at again"
            )
        };
        let mut problems: Vec<_> = set.droppers.iter().map(problem).collect();
        if connections.is_none() {
            problems.push(format!(
                "the nftables {TABLE} is gone: pods reach neither the world nor kube-proxy's Services until it is set again"
            ));
        }
        Ok(Some(Observed { connections, problems }))
    }

    fn remove(&mut self) -> Result<()> {
        match std::mem::take(&mut self.state) {
            State::Unset | State::LeftByFormer => Ok(()),
            State::Awaited(table) | State::Set(SetTable { table, .. }) => {
                remove_ours(&self.program, table.host_interface())
            }
        }
    }
}

impl SetTable {
    fn is_in_force(&self, program: &Program) -> Result<bool> {
        match nft::listed(program) {
            Ok(listed) => {
                Ok(listed.frame == self.frame && listed.elements == self.table.elements())
            }
            // It says nothing of the table.
            Err(error @ Error::NftTooSlow(_)) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// Removes the table that a killed daemon left, for one that masquerades nothing.
pub fn remove_leftover(host_interface: &str) {
    let program = Program::nft();
    // Without nft there is nothing that it could have left.
    if let Ok(Owner::Us) = nft::owner(&program, host_interface) {
        tracing::warn!("removing the nftables {TABLE}, which a killed daemon left");
        if let Err(error) = remove_ours(&program, host_interface) {
            tracing::warn!("the nftables {TABLE} stays behind: {error}");
        }
    }
}

fn remove_ours(program: &Program, host_interface: &str) -> Result<()> {
    match nft::owner(program, host_interface)? {
        Owner::Us => program.change(&format!("delete {TABLE}\n")),
        Owner::Nobody | Owner::Other(_) => Ok(()),
    }
}

//! The nftables table `inet vswitch` in the kernel.
//!
//! Enters: the table that the control plane wants. Leaves: that table in place of the one that was
//! there, by way of `nft`; no other rules are changed. A table that an earlier daemon left is
//! replaced in the same transaction, one that another program made is never touched. Where the two differ by
//! elements of maps and sets, these alone are added and deleted: one run of `nft`, of some 10 ms.
//!
//! To replace a table takes four runs, some 45 ms. A start that finds a former daemon's table leaves it in force
//! until pods' packets are forwarded again.

use std::collections::VecDeque;

use controlplane::desired::NftTable;
use controlplane::desired::nft_table::TABLE;

use crate::error::{Error, Result};
use crate::firewall;
use crate::nft::{self, Owner};

/// Processes of ours that are remembered: more than change the table before the kernel's announcements of
/// that are read.
const OWN_PROCESSES: usize = 64;

/// What was set last.
#[derive(Debug, Default)]
pub struct NftRules {
    state: State,
    /// Those that have changed the table.
    own_processes: VecDeque<u32>,
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
#[derive(Debug, PartialEq, Eq)]
pub struct Observed {
    /// Connections to the world that were masqueraded since the rules were set; `None` if the rules are
    /// gone.
    pub connections: Option<u64>,
    /// What keeps pods' packets from the world.
    pub problems: Vec<String>,
}

impl NftRules {
    /// A former daemon's table is in force: what is set first waits for the first `settle`.
    #[must_use]
    pub fn left_by_former() -> Self {
        Self { state: State::LeftByFormer, ..Self::default() }
    }

    /// Whether a process that changed the table was one of ours.
    #[must_use]
    pub fn is_own(&self, pid: u32) -> bool {
        self.own_processes.contains(&pid)
    }

    /// Puts the table in place of the one that is there, or removes ours.
    ///
    /// # Errors
    /// If `nft` is missing, the kernel refuses, or the table is another program's; the old rules are in
    /// force then.
    pub fn set(&mut self, table: Option<&NftTable>) -> Result<()> {
        let Some(table) = table else { return self.remove() };
        if matches!(self.state, State::LeftByFormer) {
            self.state = State::Awaited(table.clone());
            return Ok(());
        }
        if let State::Set(set) = &mut self.state
            && let Some(script) = table.script_from(&set.table)
        {
            let changed = if script.is_empty() { Ok(None) } else { nft::change(&script).map(Some) };
            // Where it fails, another program has changed the table.
            if let Ok(pid) = changed {
                set.table = table.clone();
                pid.into_iter().for_each(|pid| self.remember(pid));
                return Ok(());
            }
        }
        self.replace(table)
    }

    fn remember(&mut self, pid: u32) {
        self.own_processes.truncate(OWN_PROCESSES - 1);
        self.own_processes.push_front(pid);
    }

    fn replace(&mut self, table: &NftTable) -> Result<()> {
        if let Owner::Other(why) = nft::owner(table.host_interface())? {
            return Err(Error::Masquerade(format!(
                "the nftables {TABLE} {why}; rename or remove it, or set host.masquerade = false"
            )));
        }
        let pid = nft::change(&table.script())?;
        self.remember(pid);
        // The table is set by now: without a listing the next comparison sets it once more. The
        // droppers are looked for here, not at each request: on a node with many services it takes
        // nft a tenth of a second.
        self.state = State::Set(SetTable {
            table: table.clone(),
            frame: nft::listed().map(|listed| listed.frame).unwrap_or_default(),
            droppers: nft::forward_droppers(&nft::run("list chains\n").unwrap_or_default()),
        });
        Ok(())
    }

    /// Sets the table again if the kernel has another, or none; true if that was so.
    ///
    /// # Errors
    /// As for `set`.
    pub fn settle(&mut self) -> Result<bool> {
        let (table, is_repair) = match &self.state {
            State::Unset | State::LeftByFormer => return Ok(false),
            State::Awaited(table) => (table.clone(), false),
            State::Set(set) if set.is_in_force() => return Ok(false),
            State::Set(set) => (set.table.clone(), true),
        };
        self.replace(&table).map(|()| is_repair)
    }

    /// Whether the kernel has the table that was set last.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        matches!(&self.state, State::Set(set) if set.is_in_force())
    }

    /// Looks again for firewalls that drop what pods send.
    pub fn look_for_droppers(&mut self) {
        if let State::Set(set) = &mut self.state
            && let Ok(chains) = nft::run("list chains\n")
        {
            set.droppers = nft::forward_droppers(&chains);
        }
    }

    /// Asks the kernel; `None` if nothing was set.
    #[must_use]
    pub fn observe(&self) -> Option<Observed> {
        let State::Set(set) = &self.state else { return None };
        let ours = nft::run("list chain inet vswitch postrouting\n");
        let connections = ours.ok().map(|listed| nft::counted(&listed));
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
        Some(Observed { connections, problems })
    }

    fn remove(&mut self) -> Result<()> {
        match std::mem::take(&mut self.state) {
            State::Unset | State::LeftByFormer => Ok(()),
            State::Awaited(table) | State::Set(SetTable { table, .. }) => {
                remove_ours(table.host_interface())
            }
        }
    }
}

impl SetTable {
    fn is_in_force(&self) -> bool {
        nft::listed().is_ok_and(|listed| {
            listed.frame == self.frame && listed.elements == self.table.elements()
        })
    }
}

/// Removes the table that a killed daemon left, for one that masquerades nothing.
pub fn remove_leftover(host_interface: &str) {
    // Without nft there is nothing that it could have left.
    if let Ok(Owner::Us) = nft::owner(host_interface) {
        tracing::warn!("removing the nftables {TABLE}, which a killed daemon left");
        if let Err(error) = remove_ours(host_interface) {
            tracing::warn!("the nftables {TABLE} stays behind: {error}");
        }
    }
}

fn remove_ours(host_interface: &str) -> Result<()> {
    match nft::owner(host_interface)? {
        Owner::Us => nft::run(&format!("delete {TABLE}\n")).map(drop),
        Owner::Nobody | Owner::Other(_) => Ok(()),
    }
}

//! The nftables table `inet vswitch` in the kernel.
//!
//! Enters: the table that the control plane wants. Leaves: that table in place of the one that was
//! there, by way of `nft`; no other rules are changed. A table that an earlier daemon left is
//! replaced in the same transaction, one that another program made is never touched.

use controlplane::desired::NftTable;
use controlplane::desired::nft_table::TABLE;

use crate::error::{Error, Result};
use crate::nft::{self, Owner};

/// What was set last.
#[derive(Debug, Default)]
pub struct NftRules {
    set: Option<SetTable>,
}

#[derive(Debug)]
struct SetTable {
    table: NftTable,
    /// As the kernel lists it, without counters: what it lists later is compared with this.
    listed: String,
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
    /// Puts the table in place of the one that is there, or removes ours.
    ///
    /// # Errors
    /// If `nft` is missing, the kernel refuses, or the table is another program's; the old rules are in
    /// force then.
    pub fn set(&mut self, table: Option<&NftTable>) -> Result<()> {
        let Some(table) = table else { return self.remove() };
        if let Owner::Other(why) = nft::owner(table.host_interface())? {
            return Err(Error::Masquerade(format!(
                "the nftables {TABLE} {why}; rename or remove it, or set host.masquerade = false"
            )));
        }
        nft::run(table.script())?;
        // The table is set by now: without a listing the next comparison sets it once more. The
        // droppers are looked for here, not at each request: on a node with many services it takes
        // nft a tenth of a second.
        self.set = Some(SetTable {
            table: table.clone(),
            listed: nft::listed().unwrap_or_default(),
            droppers: nft::forward_droppers(&nft::run("list chains\n").unwrap_or_default()),
        });
        Ok(())
    }

    /// Sets the table again if the kernel has another, or none; true if that was so.
    ///
    /// # Errors
    /// As for `set`.
    pub fn settle(&mut self) -> Result<bool> {
        let Some(set) = &self.set else { return Ok(false) };
        if nft::listed().is_ok_and(|listed| listed == set.listed) {
            return Ok(false);
        }
        let table = set.table.clone();
        self.set(Some(&table)).map(|()| true)
    }

    /// Looks again for firewalls that drop what pods send.
    pub fn look_for_droppers(&mut self) {
        if let Some(set) = &mut self.set
            && let Ok(chains) = nft::run("list chains\n")
        {
            set.droppers = nft::forward_droppers(&chains);
        }
    }

    /// Asks the kernel; `None` if nothing was set.
    #[must_use]
    pub fn observe(&self) -> Option<Observed> {
        let set = self.set.as_ref()?;
        let ours = nft::run("list chain inet vswitch postrouting\n");
        let connections = ours.ok().map(|listed| nft::counted(&listed));
        let host = set.table.host_interface();
        let problem = |chain| {
            format!(
                "the firewall drops what nothing in its chain `{chain}` accepts: pods reach the world only if that accepts what comes by {host}, and the answers; once it does, or does not drop any more, `systemctl reload vswitchd` has it looked at again"
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
        match self.set.take() {
            None => Ok(()),
            Some(set) => remove_ours(set.table.host_interface()),
        }
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

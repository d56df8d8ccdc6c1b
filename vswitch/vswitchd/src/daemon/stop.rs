//! Reload and end.

use std::time::Instant;

use controlplane::kernel::Follower;
use controlplane::plane::Event;

use super::Daemon;
use crate::config_file;
use crate::error::chain;
use crate::{descriptors, host, kernel, machine, rules};

impl Daemon {
    /// Reads the configuration again and takes over what can be taken over while running. A file
    /// with problems changes nothing.
    pub fn reload(&mut self) {
        match self.try_reload() {
            Err(why) => tracing::error!("the configuration is not reloaded: {why}"),
            Ok(()) => {
                self.reloading = Some(self.node.rules.ordered());
                self.tell_of_reload();
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let fresh =
            config_file::load(&self.config_path).map_err(|refusal| format!("\n{refusal}"))?;
        let facts = machine::examine(&fresh, || self.recorded_addresses())
            .map_err(|error| chain(&error))?;
        self.feed_watchdog();
        // At a start there is nothing to lose by waiting.
        let mut awaited = facts.iter().flat_map(|facts| &facts.awaited);
        let known: Vec<_> = self.plane.attention().collect();
        if let Some(awaited) = awaited.find(|note| !known.contains(note)) {
            return Err(awaited.clone());
        }
        let mut follower = fresh
            .kernel_routes
            .as_ref()
            .filter(|_| fresh.kernel_routes != self.plane.config().kernel_routes)
            .map(Follower::new);
        if let Some(follower) = &mut follower {
            let now = self.millis(Instant::now());
            kernel::settle(follower, &mut self.node.netlink, now)
                .map_err(|error| format!("the kernel's routes are not read: {}", chain(&error)))?;
        }
        self.feed_watchdog();
        let reload = Event::Reload { config: Box::new(fresh), follower };
        self.react(reload).map_err(|refusal| refusal.message)?;
        self.feed_watchdog();
        self.node.rules.look_for_droppers();
        self.settle_all(Instant::now());
        Ok(())
    }

    /// Ends as a kill would: the next daemon goes on where this one ended. The NIC goes back to Linux;
    /// pods' interfaces, the host port with its routes and the nftables table stay, unless it was
    /// drained.
    pub fn stop(self) {
        let is_drained = self.is_drained;
        self.end(is_drained);
        if is_drained {
            tracing::info!("drained");
        } else {
            tracing::info!("stopped; pods keep their interfaces for the next start");
        }
    }

    /// Ends a start that fails. What it made of the node goes with it, unless a former daemon had made
    /// that already: its pods rely on it.
    pub fn give_up(self) {
        let is_first = self.node.host.as_ref().is_some_and(|host| !host.is_former);
        self.end(is_first);
    }

    fn end(self, leaves_nothing: bool) {
        let mut node = self.node;
        drop(node.uplink);
        failpoint::pass("stop-uplink");
        node.workers.stop();
        failpoint::pass("stop-workers");
        if !leaves_nothing {
            return;
        }
        node.rules.set(None);
        let nft = node.rules.wait(rules::END_PATIENCE);
        failpoint::pass("drain-nft");
        let host = node.host.map_or(Ok(()), |host| {
            node.store.forget(descriptors::HOST);
            host::remove(&mut node.netlink, &host).map_err(|error| chain(&error))
        });
        for why in [nft, host].into_iter().filter_map(Result::err) {
            tracing::warn!("something stays behind: {why}");
        }
        failpoint::pass("drain-done");
    }
}

//! Reload and end.

use std::time::Instant;

use controlplane::kernel::Follower;
use controlplane::plane::Event;

use super::Daemon;
use crate::config_file;
use crate::error::chain;
use crate::{host, kernel, machine};

impl Daemon {
    /// Reads the configuration again and takes over what can be taken over while running. A file
    /// with problems changes nothing.
    pub fn reload(&mut self) {
        if let Err(why) = self.try_reload() {
            tracing::error!("the configuration is not reloaded: {why}");
        } else {
            tracing::info!("the configuration is reloaded");
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let fresh =
            config_file::load(&self.config_path).map_err(|refusal| format!("\n{refusal}"))?;
        let facts = machine::examine(&fresh).map_err(|error| chain(&error))?;
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
        let reload = Event::Reload { config: Box::new(fresh), follower };
        self.react(reload).map_err(|refusal| refusal.message)?;
        self.node.nft.look_for_droppers();
        self.settle_all(Instant::now());
        Ok(())
    }

    /// Ends: the NIC goes back to Linux, then the workers stop, and the host port goes with its
    /// routes. Attachments stay in the journal.
    pub fn stop(self) {
        let mut node = self.node;
        drop(node.nft);
        drop(node.uplink);
        node.workers.stop();
        if node.host.is_some()
            && let Err(error) = host::remove_unreachable(&mut node.netlink)
        {
            tracing::warn!("unreachable routes stay behind: {}", chain(&error));
        }
        drop(node.host);
        tracing::info!("stopped");
    }
}

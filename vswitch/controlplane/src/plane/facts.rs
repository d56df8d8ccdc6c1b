//! What the kernel, routers of the underlay and time tell.
//!
//! Enters: facts. Leaves: changes that let the tables follow. A fact cannot be refused: what fails of
//! its list is logged, and done with the next one.

use std::net::IpAddr;

use api::AttachmentId;
use dataplane::tables::{LocalAddresses, Offloads};
use dataplane::wire::MacAddr;
use dataplane::{Millis, PathMtu};
use ipnet::IpNet;

use super::list::Frame;
use super::{ControlPlane, HostState, UplinkLink, UplinkState};
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::desired::HostPortState;
use crate::kernel::Scope;
use crate::model::Edit;
use crate::next_hop::NextHops;
use crate::own_address::{self, Candidates, Choice};
use crate::ports::PodDevice;

/// A table may have thousands of refused routes; the log has no more than so many at once.
const REFUSALS_LOGGED: usize = 20;

impl ControlPlane {
    /// Sets up what the kernel is to have before anything is forwarded.
    pub(super) fn started(
        &mut self,
        uplink: Option<UplinkState>,
        host: Option<HostState>,
    ) -> Change {
        (self.uplink, self.host) = (uplink, host);
        self.in_force.steering = self.steering();
        let mut actions = Vec::new();
        if let Some(table) = self.nft_table() {
            actions.push(Action::SetNftTable { to: Some(table), from: None });
        }
        if self.host.is_some() {
            let (to, from) = (self.host_port_state(), self.in_force.host_port.clone());
            actions.push(Action::SetHostPort { to, from });
        }
        let failure = OnFailure::Reverse(Rollback::default());
        Change { actions, notes: Vec::new(), failure }
    }

    /// The first tables, and the ports that a former daemon left. Workers read from a port once tables
    /// name it: nothing passes before everything is as it was.
    pub(super) fn ready(
        &mut self,
        own: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
        left: &[(AttachmentId, PodDevice)],
    ) -> Change {
        let mut notes = Vec::new();
        let first = left.iter().filter_map(|(attachment, device)| {
            let id = self.ports.number(attachment)?;
            let workers = self.ports.take_up(attachment, *device, self.workers);
            Some(Action::TakePort { id, workers })
        });
        let mut first: Vec<_> = first.collect();
        if let Some((has, lasting)) = own
            && self.renumber(&has, &lasting, &mut notes)
        {
            let (mut edits, mut undo) = (Vec::new(), Vec::new());
            self.record_own_addresses(&mut edits, &mut undo);
            if !edits.is_empty() {
                first.push(Action::Journal { edits, undo });
            }
        }
        self.learn(&mut notes);
        self.note_pods();
        self.fact(Frame { first, ..Frame::default() }, notes)
    }

    /// The host port has another number in the kernel, which has nothing else of it yet.
    pub(super) fn host_port_made(&mut self, host: HostState) -> Change {
        self.host = Some(host);
        self.in_force.host_port = HostPortState::default();
        let mut notes = Vec::new();
        self.learn(&mut notes);
        self.fact(Frame::default(), notes)
    }

    /// The kernel has something else: addresses, routes, the NIC, the ways to other nodes.
    pub(super) fn kernel_changed(
        &mut self,
        link: Option<UplinkLink>,
        own: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
        next_hops: Option<NextHops>,
    ) -> Change {
        let mut notes = Vec::new();
        let mut is_changed = link.is_some_and(|link| self.link_is(link, &mut notes));
        let is_renumbered =
            own.is_some_and(|(has, lasting)| self.renumber(&has, &lasting, &mut notes));
        is_changed |= is_renumbered;
        is_changed |= self.learn(&mut notes);
        if let Some(next_hops) = next_hops {
            self.next_hops = next_hops;
            is_changed = true;
        }
        if !is_changed {
            return nothing(notes);
        }
        // Peers that could not be reached from the addresses that there were.
        let mut first = Vec::new();
        if is_renumbered {
            let (mut edits, mut undo) = (Vec::new(), Vec::new());
            self.record_own_addresses(&mut edits, &mut undo);
            self.retry_refused(&mut edits, &mut undo, &mut notes);
            if !edits.is_empty() {
                first.push(Action::Journal { edits, undo });
            }
        }
        self.fact(Frame { first, ..Frame::default() }, notes)
    }

    /// The NIC is opened anew, and gives what it gave before.
    pub(super) fn uplink_reopened(
        &mut self,
        ifindex: u32,
        mac: MacAddr,
        offloads: Offloads,
    ) -> Change {
        let Some(uplink) = &mut self.uplink else { return nothing(Vec::new()) };
        uplink.ifindex = ifindex;
        (uplink.port.mac, uplink.port.offloads) = (mac, offloads);
        self.fact(Frame::default(), Vec::new())
    }

    /// The NIC is different. True if tables are to change.
    fn link_is(&mut self, link: UplinkLink, notes: &mut Vec<Note>) -> bool {
        let Some(uplink) = &mut self.uplink else { return false };
        let UplinkLink { name, mac, mtu } = link;
        let before = uplink.port.clone();
        let port = &mut uplink.port;
        if mtu != port.mtu {
            notes.push(Note::warning(format!(
                "uplink {name}: its MTU is {mtu} and was {}; that of the pods follows",
                port.mtu
            )));
        }
        port.mtu = mtu;
        port.mac = mac.unwrap_or(port.mac);
        if name != uplink.name {
            notes.push(Note::warning(format!("uplink {}: its name is {name}", uplink.name)));
            uplink.name = name;
        }
        uplink.port != before
    }

    /// Takes the uplink's addresses for our own where we have none, or where ours are gone. True if
    /// tables are to change.
    fn renumber(&mut self, has: &[IpAddr], lasting: &[IpAddr], notes: &mut Vec<Note>) -> bool {
        let (Some(uplink), Some(settings)) = (&mut self.uplink, &self.config.uplink) else {
            return false;
        };
        let (name, old) = (uplink.name.clone(), uplink.port.addresses);
        let Choice { addresses, notes: mut wrong } =
            Candidates::of(&self.config, settings, has, lasting)
                .follow(old, self.model.recorded_own);
        let (fresh, refusals) = own_address::admitted(&self.config, &name, old, addresses);
        let lost = fresh.iter().filter(|address| !has.contains(address));
        wrong.extend(lost.map(|address| own_address::lost(settings, &name, address)));
        wrong.extend(refusals);
        uplink.port.addresses = fresh;
        if fresh != old {
            let own: Vec<_> = fresh.iter().map(|own| own.to_string()).collect();
            let own = if own.is_empty() { "none".to_owned() } else { own.join(", ") };
            notes.push(Note::warning(format!("uplink {name}: underlay address {own}")));
            self.model.set_own_addresses(fresh);
        }
        self.note_addresses(wrong, notes);
        fresh != old
    }

    /// A restart keeps the addresses that there are.
    fn record_own_addresses(&mut self, edits: &mut Vec<Edit>, undo: &mut Vec<Edit>) {
        let own = self.uplink.as_ref().map(|uplink| uplink.port.addresses);
        let edit = own.and_then(|own| self.model.recording_own_addresses(own));
        undo.extend(edit.iter().flat_map(|edit| self.model.apply_all(std::slice::from_ref(edit))));
        edits.extend(edit);
    }

    /// Notes what is wrong, once, and that it is not any more.
    fn note_addresses(&mut self, wrong: Vec<String>, notes: &mut Vec<Note>) {
        let fresh = wrong.iter().filter(|warning| !self.address_notes.contains(warning));
        notes.extend(fresh.map(Note::error));
        if wrong.is_empty() && !self.address_notes.is_empty() {
            notes.push(Note::info("the uplink has the addresses of this node"));
        }
        self.address_notes = wrong;
    }

    /// Whether the addresses of the uplink are ours already, so that nobody needs to ask which of
    /// them last.
    #[must_use]
    pub fn are_own_addresses_settled(&self, has: &[IpAddr]) -> bool {
        let old = self
            .uplink
            .as_ref()
            .map_or_else(LocalAddresses::default, |uplink| uplink.port.addresses);
        let may_be_ours =
            |address: &&IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        old.iter().all(|address| has.contains(&address))
            && has.iter().filter(may_be_ours).all(|address| old.towards(*address).is_some())
    }

    /// Takes over what the kernel's routing table tells. True if something of it is different.
    pub(super) fn learn(&mut self, notes: &mut Vec<Note>) -> bool {
        let scope = self.kernel_scope();
        let Some(follower) = &mut self.follower else { return false };
        let changes = follower.apply_to(&mut self.model.kernel, scope);
        if changes.any {
            let learned = &self.model.kernel;
            for prefix in changes.refused.iter().take(REFUSALS_LOGGED) {
                let reason = learned.refused.get(prefix).map_or("", String::as_str);
                notes.push(Note::warning(format!(
                    "the kernel's route to {prefix} is refused: {reason}"
                )));
            }
        }
        changes.any
    }

    fn kernel_scope(&self) -> Scope {
        let settings = self.config.kernel_routes.as_ref();
        let pods = &self.model.pods;
        let underlay = self.uplink.iter().flat_map(|uplink| uplink.port.addresses.iter());
        let leases = self.model.attachments.values().flat_map(|lease| &lease.addresses);
        Scope {
            prefixes: settings.map(|settings| settings.prefixes.clone()).unwrap_or_default(),
            covering: settings.is_some_and(|settings| settings.covering),
            own: pods.all().copied().collect(),
            cluster: self.model.cluster_prefixes.clone(),
            pods: leases.map(IpNet::addr).collect(),
            node: pods.own_addresses().chain(underlay).collect(),
            uplink: self.uplink.as_ref().map(|uplink| uplink.ifindex),
            host: self.host.as_ref().map(|host| host.ifindex),
        }
    }

    /// Has every peer be sent no more than routers of the underlay let through.
    pub(super) fn path_mtus_reported(&mut self, reported: Vec<PathMtu>, now: Millis) -> Change {
        let mut notes = Vec::new();
        let mut is_changed = self.path_mtus.expire(now);
        for report in reported {
            if self.path_mtus.note(report, now) {
                notes.push(Note::info(format!(
                    "no more than {} bytes of a tunnel packet pass to {}, a router of the underlay reports",
                    report.mtu, report.address
                )));
                is_changed = true;
            }
        }
        if !is_changed {
            return nothing(notes);
        }
        let former = &self.model.path_mtus;
        let gone = former.keys().filter(|address| self.path_mtus.to(**address).is_none());
        let gone = gone.map(|address| Edit::NoPathMtu { address: *address });
        let fresh =
            self.path_mtus.known().filter(|(address, mtu)| former.get(address) != Some(mtu));
        let fresh = fresh.map(|(address, mtu)| Edit::PathMtu { address, mtu });
        let edits: Vec<_> = gone.chain(fresh).collect();
        let undo = self.model.apply_all(&edits);
        let first = vec![Action::Journal { edits, undo }];
        self.fact(Frame { first, ..Frame::default() }, notes)
    }

    /// What the journal has refused is written.
    pub(super) fn journal_mended(&mut self) -> Change {
        let actions = if self.owes_lines() {
            vec![Action::Journal { edits: Vec::new(), undo: Vec::new() }]
        } else {
            Vec::new()
        };
        Change { actions, notes: Vec::new(), failure: OnFailure::GoOn }
    }

    /// Ports that waited for a worker are closed, and a list that broke off goes on.
    pub(super) fn workers_caught_up(&mut self) -> Change {
        if self.is_broken_off {
            return self.fact(Frame::default(), Vec::new());
        }
        let leaving = self.ports.leaving();
        let actions = if leaving.is_empty() {
            Vec::new()
        } else {
            vec![Action::RemovePorts(leaving.to_vec())]
        };
        Change { actions, notes: Vec::new(), failure: OnFailure::GoOn }
    }
}

pub(super) fn nothing(notes: Vec<Note>) -> Change {
    Change { actions: Vec::new(), notes, failure: OnFailure::GoOn }
}

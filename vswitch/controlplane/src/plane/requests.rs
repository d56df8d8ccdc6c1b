//! What clients ask for: leases and ports of pods, peers, routes and entries at run time.
//!
//! Enters: requests. Leaves: changes that carry them out, or refusals; a refused request has changed
//! nothing.

use api::{
    Attach, AttachmentId, ErrorKind, ErrorReply, PeerSpec, Recover, Reply, Request, Reserve,
    Reserved,
};

use super::ControlPlane;
use super::list::Frame;
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::model::{Edit, attachments, refuse};
use crate::mtu;
use crate::ports::PodDevice;

/// What an interface may have: RFC 791 section 3.2, and IPv4's length field.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

impl ControlPlane {
    pub(super) fn on_request(&mut self, request: Request) -> Result<Change, ErrorReply> {
        let (config, model) = (&self.config, &self.model);
        let edits = match request {
            Request::Reserve(reserve) => return self.reserve(&reserve),
            Request::Recover(recover) => return self.recover(&recover),
            Request::Detach(attachment) => {
                return Ok(self.detach(&[attachment], Vec::new(), Reply::Done));
            }
            Request::Collect(collect) => {
                let (stale, named) = model.collect(&collect)?;
                return Ok(self.detach(&stale, named, Reply::Done));
            }
            Request::Drain => return Ok(self.drain()),
            Request::InterfaceNotFound(pod) => return self.interface_not_found(&pod),
            Request::Adjusted { attachment, mtu } => self.adjusted(&attachment, mtu),
            Request::AddRoute(route) => model.add_route(config, route),
            Request::DeleteRoute(prefix) => model.delete_route(config, prefix),
            Request::AddPeer(peer) => {
                self.admit_mtu(&peer)?;
                model.add_peer(config, peer)
            }
            Request::DeletePeer(name) => model.delete_peer(config, &name),
            Request::SyncPeers(sync) => return self.sync_peers(sync),
            Request::SyncServices(sync) => return Ok(self.sync_services(sync)),
            Request::SyncPolicies(sync) => return self.sync_policies(sync),
            Request::ForgetPolicies => return Ok(self.forget_policies()),
            Request::SetPodPrefixes(prefixes) => return self.set_pod_prefixes(&prefixes),
            Request::AddFdb { bridge, mac, vtep } => model.add_fdb(config, bridge, mac, vtep),
            Request::DeleteFdb { bridge, mac } => model.delete_fdb(bridge, mac),
            Request::AddNeighbor { bridge, address, mac } => {
                model.add_neighbor(config, bridge, address, mac)
            }
            Request::DeleteNeighbor { bridge, address } => model.delete_neighbor(bridge, address),
            // The port came as a file descriptor, or the question is no change.
            Request::Attach(_)
            | Request::Check(_)
            | Request::Status
            | Request::ShowPorts
            | Request::ShowFdb
            | Request::ShowFib
            | Request::ShowNeighbors
            | Request::ShowPeers
            | Request::ShowDrops
            | Request::ShowLatency { .. }
            | Request::FollowDrops(_)
            | Request::ShowServices
            | Request::ShowPolicies
            | Request::PolicyDigest
            | Request::ShowSessions { .. }
            | Request::Adjustments
            | Request::Reattachments
            | Request::Survey
            | Request::Surveyed
            | Request::Trace(_)
            | Request::Explain(_) => {
                Err(refuse(ErrorKind::Internal, "this request changes nothing"))
            }
        }?;
        let note = Note::info(format!("changed: {edits:?}"));
        Ok(self.edited(edits, Reply::Done, vec![note]))
    }

    /// The change that these edits come to.
    pub(super) fn edited(&mut self, edits: Vec<Edit>, answer: Reply, notes: Vec<Note>) -> Change {
        let undo = self.model.apply_all(&edits);
        let rollback = Rollback { undo: undo.clone(), ..Rollback::default() };
        let first = vec![Action::Journal { edits, undo }];
        self.request(Frame { first, answer: Some(answer), ..Frame::default() }, rollback, notes)
    }

    /// A lease for an attachment. Nothing forwards for one without a port: it is on disk, and that
    /// is all, unless the node's own addresses make room for it.
    fn reserve(&mut self, request: &Reserve) -> Result<Change, ErrorReply> {
        let attachment = &request.attachment;
        let has_port = self.ports.is_up(attachment);
        let (edits, reserved) =
            self.model.reserve(&self.config, request, self.pod_mtu(), has_port)?;
        let note = Note::info(format!(
            "reserved for {} in {}: {:?}",
            attachments::name(attachment),
            request.netns,
            reserved.addresses
        ));
        self.lease(attachment, edits, reserved, note)
    }

    /// A lease for a pod that was found without one; its port follows.
    fn recover(&mut self, request: &Recover) -> Result<Change, ErrorReply> {
        let (edits, reserved) = self.model.recover(&self.config, request)?;
        let note = Note::warning(format!(
            "{} was lost with a line of the journal, and is taken up as its interface in {} has it: {:?}",
            attachments::name(&request.attachment),
            request.netns,
            reserved.addresses
        ));
        self.lease(&request.attachment, edits, reserved, note)
    }

    fn lease(
        &mut self,
        attachment: &AttachmentId,
        mut edits: Vec<Edit>,
        reserved: Reserved,
        note: Note,
    ) -> Result<Change, ErrorReply> {
        let ports = self.ports.clone();
        let Some(number) = self.ports.number(attachment) else {
            return Err(refuse(
                ErrorKind::Exhausted,
                "every port number is in use; this node has no room for another pod",
            ));
        };
        for edit in &mut edits {
            if let Edit::Lease { lease, .. } = edit {
                lease.port = Some(number.0);
            }
        }
        let queues = self.readable(reserved.queues);
        let answer = Reply::Reserved(Reserved { queues, ..reserved });
        // One that was attached before the daemon ended may be replaced: what its hostPorts had goes.
        let former = self.model.attachments.get(attachment);
        let had_mappings = former.is_some_and(|former| !former.port_mappings.is_empty());
        let masquerade = self.model.pods.masquerade().to_vec();
        let undo = self.model.apply_all(&edits);
        let is_moved = self.model.pods.masquerade() != masquerade;
        let rollback = Rollback { undo: undo.clone(), ports: Some(ports), ..Rollback::default() };
        if had_mappings && !edits.is_empty() || is_moved {
            let first = vec![Action::Journal { edits, undo }];
            let frame = Frame { first, answer: Some(answer), ..Frame::default() };
            return Ok(self.request(frame, rollback, vec![note]));
        }
        let mut actions = Vec::new();
        if !edits.is_empty() {
            actions.push(Action::Journal { edits, undo });
        }
        actions.push(Action::Answer(answer));
        Ok(Change { actions, notes: vec![note], failure: OnFailure::Reverse(rollback) })
    }

    /// Takes over a pod's interface; when it is answered, every worker forwards for it.
    pub(super) fn attach(
        &mut self,
        request: &Attach,
        device: PodDevice,
    ) -> Result<Change, ErrorReply> {
        let attachment = &request.attachment;
        let edits = self.model.attach(attachment, request.mac)?;
        if self.ports.is_up(attachment) {
            return Err(refuse(
                ErrorKind::Conflict,
                format!("{} is attached already; delete it first", attachments::name(attachment)),
            ));
        }
        let ports = self.ports.clone();
        let Some(id) = self.ports.number(attachment) else {
            return Err(refuse(ErrorKind::Exhausted, "every port number is in use"));
        };
        let workers = self.ports.take_up(attachment, device, self.workers);
        let undo = self.model.apply_all(&edits);
        let rollback = Rollback { undo: undo.clone(), ports: Some(ports), ..Rollback::default() };
        let journal = (!edits.is_empty()).then_some(Action::Journal { edits, undo });
        let first = journal.into_iter().chain([Action::TakePort { id, workers }]).collect();
        let note = Note::info(format!("{id}: {} is attached", attachments::name(attachment)));
        self.ended.remove(attachment);
        self.note_pods();
        let frame = Frame { first, answer: Some(Reply::Done), ..Frame::default() };
        Ok(self.request(frame, rollback, vec![note]))
    }

    /// Frees all that these attachments hold, after other edits of leases, in one transaction; nothing
    /// to free is success. An address is free when it is answered, a port's file descriptor is closed
    /// once no worker can use it any more.
    fn detach(&mut self, attachments: &[AttachmentId], first: Vec<Edit>, answer: Reply) -> Change {
        let ports = self.ports.clone();
        let masquerade = self.model.pods.masquerade().to_vec();
        let mut undos = vec![self.model.apply_all(&first)];
        let (mut edits, mut notes, mut was_live) = (first, Vec::new(), false);
        for attachment in attachments {
            let Some(freed) = self.free(attachment) else { continue };
            undos.push(freed.undo);
            edits.extend(freed.edits);
            was_live |= freed.was_live;
            notes.push(Note::info(format!("{} is detached", attachments::name(attachment))));
        }
        if edits.is_empty() {
            let actions = vec![Action::Answer(answer)];
            let failure = OnFailure::Reverse(Rollback::default());
            return Change { actions, notes, failure };
        }
        self.note_pods();
        // What was done last is taken back first.
        let mut undo: Vec<_> = undos.into_iter().rev().flatten().collect();
        let refused = self.retry_refused(&mut edits, &mut undo, &mut notes);
        // The last lease of a prefix takes the prefix with it, and a peer may have waited for either.
        let are_leases =
            edits.iter().all(|edit| matches!(edit, Edit::Lease { .. } | Edit::NoLease { .. }));
        let rollback =
            Rollback { undo: undo.clone(), ports: Some(ports), refused, ..Rollback::default() };
        let journal = Action::Journal { edits, undo };
        let is_moved = self.model.pods.masquerade() != masquerade;
        if was_live || !are_leases || is_moved || self.is_nft_table_due() {
            let first = vec![journal];
            let frame = Frame { first, answer: Some(answer), ..Frame::default() };
            return self.request(frame, rollback, notes);
        }
        let actions = vec![journal, Action::Answer(answer)];
        Change { actions, notes, failure: OnFailure::Reverse(rollback) }
    }

    /// Frees everything that pods hold; their ports are closed when it is answered.
    fn drain(&mut self) -> Change {
        let without_port = self.reattachments();
        let without_port = without_port.iter().map(|pod| self.port_name(&pod.attachment)).collect();
        let pods: Vec<_> = self.model.attachments.keys().cloned().collect();
        let answer = Reply::Drained { pods: pods.len(), without_port };
        self.detach(&pods, Vec::new(), answer)
    }

    /// A pod's interface has another MTU.
    fn adjusted(&self, attachment: &AttachmentId, mtu: u32) -> Result<Vec<Edit>, ErrorReply> {
        let name = attachments::name(attachment);
        let Some(lease) = self.model.attachments.get(attachment) else {
            return Err(refuse(ErrorKind::Unknown, format!("nothing is reserved for {name}")));
        };
        if !MTU.contains(&mtu) {
            return Err(refuse(
                ErrorKind::Invalid,
                format!("{mtu} is no MTU that {name} can have"),
            ));
        }
        let mut lease = lease.clone();
        lease.mtu = mtu;
        Ok(vec![Edit::Lease { attachment: attachment.clone(), lease }])
    }

    /// Refuses a peer that cannot be reached with the pods' MTU.
    fn admit_mtu(&self, peer: &PeerSpec) -> Result<(), ErrorReply> {
        let Some(uplink) = &self.uplink else { return Ok(()) };
        match mtu::refuses(&self.config, &self.model, &uplink.name, uplink.port.mtu, peer) {
            None => Ok(()),
            Some(message) => {
                let message = format!("peer \"{}\": {message}", peer.name);
                Err(refuse(ErrorKind::Invalid, message))
            }
        }
    }
}

//! The MTU follows: the host port's at once, the pods' by `vswitch-cni --adjust`.
//!
//! Enters: every change of peers, configuration and uplink, by `publish`. Leaves: the host port's
//! MTU; what is to be done in pods' namespaces, to whoever may enter them; sentences for `status`.
//! Until a pod's interface has its other MTU, a packet that is too long is answered with the length
//! that passes.
//!
//! The daemon cannot set it. It gets at the namespace of a TAP (TUNGETDEVNETNS) and at an identifier
//! of that (RTM_NEWNSID), but with IFLA_TARGET_NETNSID the kernel looks for the interface of RTM_SETLINK
//! and of RTM_NEWLINK in the caller's own namespace, and moves it (net/core/rtnetlink.c, Linux 6.18:
//! ENODEV or EEXIST); and entering takes CAP_SYS_ADMIN.

use std::fs;
use std::path::PathBuf;

use api::{Adjustment, AttachmentId, ErrorKind, ErrorReply, PeerSpec};

use super::Daemon;
use crate::error::chain;
use controlplane::model::{Edit, attachments, refuse};
use controlplane::mtu;

/// What an interface may have: RFC 791 section 3.2, and IPv4's length field.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

impl Daemon {
    /// MTU that pods' interfaces are to have.
    pub(crate) fn pod_mtu(&self) -> u32 {
        let uplink = self.uplink.as_ref().map(|uplink| uplink.facts.mtu);
        mtu::pod_mtu(&self.config, &self.model, uplink)
    }

    /// Live pods whose interface has another MTU than it is to have.
    pub(crate) fn adjustments(&self) -> Vec<Adjustment> {
        let mtu = self.pod_mtu();
        let leases = self.model.attachments.iter();
        leases
            .filter(|(attachment, lease)| lease.mtu != mtu && self.ports.is_up(attachment))
            .map(|(attachment, lease)| Adjustment {
                attachment: attachment.clone(),
                netns: lease.netns.clone(),
                mtu,
            })
            .collect()
    }

    /// A pod's interface has another MTU.
    pub(crate) fn adjusted(
        &mut self,
        attachment: &AttachmentId,
        mtu: u32,
    ) -> Result<(), ErrorReply> {
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
        self.transact(&[Edit::Lease { attachment: attachment.clone(), lease }])?;
        tracing::info!(
            container = attachment.container_id,
            ifname = attachment.ifname,
            mtu,
            "adjusted"
        );
        Ok(())
    }

    /// Refuses a peer that cannot be reached with the pods' MTU.
    pub(crate) fn admit_mtu(&self, peer: &PeerSpec) -> Result<(), ErrorReply> {
        let Some(uplink) = &self.uplink else { return Ok(()) };
        let facts = &uplink.facts;
        match mtu::refuses(&self.config, &self.model, &facts.link.name, facts.mtu, peer) {
            None => Ok(()),
            Some(message) => {
                let message = format!("peer \"{}\": {message}", peer.name);
                Err(refuse(ErrorKind::Invalid, message))
            }
        }
    }

    /// The host port has the pods' MTU.
    pub(super) fn follow_host_mtu(&mut self) {
        let mtu = self.pod_mtu();
        if let Some(host) = self.host.as_mut().filter(|host| host.mtu != mtu) {
            match host.resize(mtu) {
                Ok(()) => tracing::info!("host port {}: MTU {mtu}", host.name),
                Err(error) => tracing::error!("{}", chain(&error)),
            }
        }
    }

    /// Says what is wrong with MTUs, and calls for whom it takes to mend it.
    pub(super) fn note_mtu(&mut self) {
        let mut notes = Vec::new();
        if let Some(uplink) = &self.uplink {
            let facts = &uplink.facts;
            let found = mtu::problem(&self.config, &self.model, &facts.link.name, facts.mtu);
            notes.extend(found.map(|(_, message)| message));
        }
        let waiting = self.adjustments().len();
        if waiting > 0 {
            notes.push(format!(
                "{waiting} pod(s) have another MTU than {}; `vswitch-cni --adjust` gives it to them",
                self.pod_mtu()
            ));
        }
        for note in notes.iter().filter(|note| !self.mtu_notes.contains(note)) {
            tracing::warn!("{note}");
            if waiting > 0 {
                self.call_adjuster();
            }
        }
        self.mtu_notes = notes;
    }

    /// A file beside the socket is written, which the unit vswitch-adjust.path watches.
    fn call_adjuster(&self) {
        let path = self.adjuster_file();
        if let Err(error) = fs::write(&path, format!("{}\n", self.pod_mtu())) {
            tracing::error!("cannot write {}: {error}", path.display());
        }
    }

    fn adjuster_file(&self) -> PathBuf {
        let mut path = self.config.control.socket.clone().into_os_string();
        path.push(".adjust");
        path.into()
    }
}

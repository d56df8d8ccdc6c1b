//! Whether a pod may have a name, a MAC, or an address that another allocator gave.
//!
//! Enters: what a CNI call names. Leaves: nothing, or why it cannot be had. Called by the judgements of
//! `Reserve` and `Recover`.

use std::net::{IpAddr, Ipv4Addr};

use api::{AttachmentId, ErrorKind, ErrorReply, Mac};
use dataplane::tables::Gateway;
use ipnet::IpNet;

use super::{join, name};
use crate::config::Config;
use crate::model::ipam::IpamError;
use crate::model::{Model, refuse};

/// Container ids are 64 hexadecimal digits, names of networks some letters; anything much longer is no
/// runtime's.
const MAX_ID: usize = 256;

impl Model {
    /// Judges addresses that another than this allocator gave; `giver` begins a sentence of which the
    /// address is the object.
    pub(super) fn admit_given(&self, giver: &str, addresses: &[IpNet]) -> Result<(), ErrorReply> {
        if addresses.is_empty() {
            return Err(refuse(ErrorKind::Invalid, format!("{giver} no address")));
        }
        for net in addresses {
            let address = net.addr();
            self.ipam.admit(address).map_err(|error| ipam_refusal(&error))?;
            if !is_host_address(address) {
                return Err(refuse(
                    ErrorKind::Invalid,
                    format!("{giver} {address}, which no host can have"),
                ));
            }
            let owner = self
                .peers
                .values()
                .find(|(peer, _)| peer.prefixes.iter().any(|prefix| prefix.contains(&address)));
            if let Some((peer, _)) = owner {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!(
                        "{giver} {address}, which belongs to peer \"{}\"; give it a range of this node's: {}",
                        peer.name,
                        join(self.pods.current())
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn admit_mac(&self, mac: Mac) -> Result<Mac, ErrorReply> {
        if mac.0[0] & 1 == 1 || mac.0 == [0; 6] || mac.0 == Gateway::MAC.0 {
            return Err(refuse(
                ErrorKind::Invalid,
                format!("{mac} cannot be a pod's MAC: it is a group's, zero, or the gateway's"),
            ));
        }
        match self.attachments.iter().find(|(_, lease)| lease.mac == mac) {
            Some((other, _)) => Err(refuse(
                ErrorKind::Conflict,
                format!("{} has the MAC {mac} already", name(other)),
            )),
            None => Ok(mac),
        }
    }
}

pub(super) fn check_id(attachment: &AttachmentId) -> Result<(), ErrorReply> {
    check_name("container id", &attachment.container_id, MAX_ID)?;
    check_name("interface name", &attachment.ifname, 15)
}

pub(super) fn check_network(name: &str) -> Result<(), ErrorReply> {
    check_name("network's name", name, MAX_ID)
}

fn check_name(what: &str, text: &str, max: usize) -> Result<(), ErrorReply> {
    if (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(refuse(
        ErrorKind::Invalid,
        format!("the {what} must have 1 to {max} printable characters and no space"),
    ))
}

pub(in crate::model) fn check_bridge(config: &Config, bridge: &str) -> Result<(), ErrorReply> {
    if bridge == config.bridge.name {
        Ok(())
    } else {
        Err(refuse(
            ErrorKind::Unknown,
            format!(
                "there is no bridge domain \"{bridge}\"; this node has \"{}\"",
                config.bridge.name
            ),
        ))
    }
}

pub(in crate::model) fn is_host_address(address: IpAddr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST))
}

pub(super) fn ipam_refusal(error: &IpamError) -> ErrorReply {
    let kind = match error {
        IpamError::InUse(_) => ErrorKind::Conflict,
        IpamError::Unusable { .. } | IpamError::ForeignRange { .. } => ErrorKind::Invalid,
        IpamError::Exhausted(_) | IpamError::RangeExhausted(_) => ErrorKind::Exhausted,
    };
    refuse(kind, error.to_string())
}

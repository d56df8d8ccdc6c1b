//! What the control plane reacts to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{Attach, AttachmentId, Request};
use dataplane::tables::{Offloads, PortId};
use dataplane::wire::MacAddr;
use dataplane::{Millis, PathMtu};

use super::{HostState, UplinkState};
use crate::config::Config;
use crate::kernel::Follower;
use crate::next_hop::NextHops;
use crate::ports::PodDevice;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The daemon has made the host port, and opened the NIC for what is to be taken from it: what they
    /// need of the kernel is set up, or the daemon does not start.
    Started {
        /// The NIC, if there is one.
        uplink: Option<UplinkState>,
        /// The node's own port, if there is one.
        host: Option<HostState>,
    },
    /// The kernel has what it is to have: the workers get their first tables.
    Ready {
        /// The NIC's addresses: all of them, and those that last.
        own: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
        /// Pods' ports that a former daemon left.
        left: Vec<(AttachmentId, PodDevice)>,
    },
    /// The host port was removed and made again.
    HostPortMade(HostState),
    /// A client asks for a change. One that only asks what is, is answered without the control plane.
    Request(Request),
    /// The plugin hands a pod's port over.
    Attach {
        /// Which.
        request: Attach,
        /// What came of it.
        device: PodDevice,
    },
    /// Devices of ports are gone.
    PortsGone(Vec<PortId>),
    /// Somebody has looked whose network namespaces are gone.
    NamespacesGone {
        /// The pods whose path leads to none any more; all of them.
        gone: BTreeSet<AttachmentId>,
        /// The time.
        now: Millis,
    },
    /// Routers of the underlay reported how large a packet may be, or it is time to forget such
    /// reports.
    PathMtus {
        /// What they reported.
        reported: Vec<PathMtu>,
        /// The time.
        now: Millis,
    },
    /// The kernel has something else than before, or it is time to look.
    KernelChanged {
        /// The NIC, if the kernel announced it.
        link: Option<UplinkLink>,
        /// The NIC's addresses: all of them, and those that last.
        own: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
        /// The ways to the other nodes, if they were looked up and are different.
        next_hops: Option<NextHops>,
    },
    /// The NIC was opened anew: by another kind of uplink, or because it is another device by now. It takes
    /// what was taken before.
    UplinkReopened {
        /// The kernel's number of the NIC.
        ifindex: u32,
        /// Its MAC.
        mac: MacAddr,
        /// Work that it takes undone.
        offloads: Offloads,
    },
    /// The configuration was read again.
    Reload {
        /// What it is now.
        config: Box<Config>,
        /// Follows the kernel's table by it, which was read; `None` if the table is no source, or is
        /// followed as before.
        follower: Option<Follower>,
    },
    /// Time has passed since a list could not give the nftables table what it is to have.
    NftTableOverdue,
    /// Every worker uses the tables that it did not take in time.
    WorkersCaughtUp,
    /// The journal takes lines again.
    JournalMended,
}

/// The NIC, as the kernel announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkLink {
    /// Its name.
    pub name: String,
    /// Its MAC, if it has one.
    pub mac: Option<MacAddr>,
    /// Largest IP packet that we can receive and send by it, bytes.
    pub mtu: u32,
}

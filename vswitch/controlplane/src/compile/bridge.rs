//! Members of the stretched L2 segment.
//!
//! Enters: bridged pods, VTEPs of the configuration, MACs that a source names. Leaves: the bridge.

use api::{Encapsulation, Mode};
use dataplane::tables::{Bridge, FdbTarget, RemoteVtep, Template, VtepId};
use dataplane::wire::MacAddr;

use super::adjacency::outer;
use super::{Input, clamp, vni};

/// The bridge domain of the configuration.
pub(super) fn bridge(input: &Input<'_>) -> Bridge {
    let mut bridge = Bridge { vni: input.config.bridge.vni.map(vni), ..Bridge::default() };
    for (attachment, pod) in input.pods {
        let Some(lease) = input.model.attachments.get(attachment) else { continue };
        if matches!(lease.mode, Mode::Bridged { .. }) {
            bridge.members.push(pod.id);
            bridge.fdb.insert(MacAddr(lease.mac.0), FdbTarget::Port(pod.id));
        }
    }
    bridge.members.sort_unstable();
    if let (Some(vni), Some(uplink)) = (bridge.vni, input.uplink) {
        for address in &input.config.bridge.vteps {
            let overlay = &input.config.overlay;
            let template = outer(input, *address, uplink).map(|outer| {
                Template::vxlan_bridged(outer, vni, overlay.vxlan_port)
                    .with_outer_df(overlay.outer_df)
            });
            bridge.vteps.push(RemoteVtep {
                address: *address,
                port: uplink.id,
                template,
                mtu: clamp(input.mtu_within(Encapsulation::Vxlan, *address, uplink)),
            });
        }
    }
    for ((_, mac), vtep) in &input.model.fdb {
        // A VTEP that the configuration no longer has: the entry waits for it.
        if let Some(id) = bridge.vtep_at(*vtep) {
            bridge.fdb.entry(MacAddr(mac.0)).or_insert(FdbTarget::Vtep(VtepId(id.0)));
        }
    }
    bridge
}

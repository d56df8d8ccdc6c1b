//! What a reload replaced in the overlay, and peers that were not reloaded yet still send to.
//!
//! Enters: the `[overlay]` of before. Leaves: the same ports and identifiers as further ones of the
//! `[overlay]` that follows. Kept by the daemon, until it ends.

use super::OverlaySettings;

/// Ports and identifiers that this daemon once sent to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Former {
    vxlan_ports: Vec<u16>,
    vnis: Vec<u32>,
}

impl Former {
    /// With those of this one, too.
    #[must_use]
    pub fn with(&self, old: &OverlaySettings) -> Self {
        let mut with = self.clone();
        if !with.vxlan_ports.contains(&old.vxlan_port) {
            with.vxlan_ports.push(old.vxlan_port);
        }
        if !with.vnis.contains(&old.vni) {
            with.vnis.push(old.vni);
        }
        with
    }

    /// Adds them to what is accepted.
    pub fn stay_accepted(&self, overlay: &mut OverlaySettings) {
        overlay.accept_vxlan_ports.extend(&self.vxlan_ports);
        overlay.accept_vnis.extend(&self.vnis);
    }

    /// Sentences about those that are not in use any more.
    #[must_use]
    pub fn notes(&self, overlay: &OverlaySettings) -> Vec<String> {
        let ports = self.vxlan_ports.iter().filter(|port| **port != overlay.vxlan_port);
        let ports =
            ports.map(|port| format!("VXLAN to UDP port {port} is taken until the next restart"));
        let vnis = self.vnis.iter().filter(|vni| **vni != overlay.vni);
        let vnis = vnis.map(|vni| format!("VXLAN with VNI {vni} is taken until the next restart"));
        ports.chain(vnis).collect()
    }
}

//! The VNIs that are this node's: few, so that a list is asked faster than a hash table.
//!
//! Enters: VNIs and what they stand for, from the control thread. Leaves: answers to `decap`.

use super::Domain;
use crate::wire::Vni;

/// VNIs, and the network that each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vnis {
    /// Ascending.
    list: Vec<(Vni, Domain)>,
}

impl Vnis {
    /// The network of this VNI, if it is one of them.
    #[inline]
    #[must_use]
    pub fn get(&self, vni: &Vni) -> Option<&Domain> {
        let at = self.list.binary_search_by_key(vni, |(known, _)| *known).ok()?;
        self.list.get(at).map(|(_, domain)| domain)
    }

    /// Adds a VNI, or has it stand for another network.
    pub fn insert(&mut self, vni: Vni, domain: Domain) {
        match self.list.binary_search_by_key(&vni, |(known, _)| *known) {
            Ok(at) => {
                if let Some((_, known)) = self.list.get_mut(at) {
                    *known = domain;
                }
            }
            Err(at) => self.list.insert(at, (vni, domain)),
        }
    }
}

impl FromIterator<(Vni, Domain)> for Vnis {
    fn from_iter<I: IntoIterator<Item = (Vni, Domain)>>(vnis: I) -> Self {
        let mut all = Self::default();
        vnis.into_iter().for_each(|(vni, domain)| all.insert(vni, domain));
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Domain, Vni, Vnis};
    use crate::tables::BridgeId;

    #[test]
    fn each_vni_stands_for_what_was_said_last() {
        let vni = |number| Vni::new(number).unwrap();
        let bridged = Domain::Bridged(BridgeId(1));
        let named = [(9, Domain::Routed), (3, bridged), (7, bridged), (9, bridged)];
        let vnis: Vnis = named.into_iter().map(|(number, of)| (vni(number), of)).collect();
        for number in [3, 7, 9] {
            assert_eq!(vnis.get(&vni(number)), Some(&bridged), "{number}");
        }
        assert_eq!(vnis.get(&vni(8)), None);
    }
}

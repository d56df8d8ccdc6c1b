//! What the node's kernel is to have, as plain values.
//!
//! Enters: the configuration and the model. Leaves: desired states, which a change's list of actions
//! names and which `vswitchd` compares with what the kernel has.
//!
//! | file | holds |
//! |---|---|
//! | `host_port` | addresses, neighbours, routes and MTU of the node's own port |
//! | `nft_table` | the nftables table, as text |
//! | `steering`  | what is taken from the NIC |
//! | `translation` | ports of the node that lead to pods |

pub mod host_port;
pub mod nft_table;
pub mod steering;
pub mod translation;

pub use host_port::{HostPortRepair, HostPortState, HostRoute};
pub use nft_table::NftTable;
pub use steering::Steering;
pub use translation::{NodePort, Translation, Translations};

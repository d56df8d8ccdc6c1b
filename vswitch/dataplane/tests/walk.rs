//! The walk from end to end: what comes in, what leaves, what is counted.
//!
//! | file | holds |
//! |---|---|
//! | `scenarios`  | cases in text, `scenarios/*.walk` |
//! | `properties` | what is true of any packet, by proptest |
//! | `policy_properties` | that policies hold for any packets, by a naive model |
//! | `service_properties` | that flows to services reach their backends, by a naive model |
//! | `joined`     | tunnel packets that came as one |
//! | `journeys`   | what arrives of a superframe that was cut, and at a second node |
//! | `merging`    | which segments from the NIC leave together, and when |
//! | `drop_reasons_page` | that `docs/drop-reasons.md` is made of the code |
//! | `drop_samples` | what a reader sees of dropped packets |
//! | `no_alloc`   | that a packet costs no allocation |
//! | `node`, `scenario` | what these share: a node and packets in text, and the cases' format |

mod drop_reasons_page;
mod drop_samples;
mod joined;
mod journeys;
mod merging;
mod no_alloc;
mod node;
mod policy_properties;
mod properties;
mod scenario;
mod scenarios;
mod service_properties;

//! Policies from objects to judgements: the translation, the compiler and the tables together, against an
//! oracle that reads the objects.
//!
//! | file | holds |
//! |---|---|
//! | `world`  | pods, namespaces and policies, and what the node would judge |
//! | `oracle` | what the API says of the same |
//! | `cases`  | a table of cases of the shape of the public conformance suite |
//! | `lab`    | those of them that tests/kubernetes/policies.sh repeats with real pods |
//! | `tiers`  | cluster policies and what else the table does not have |
//! | `random` | random policies |
//! | `live`   | random changes, one after the other, and the messages that they make |

mod cases;
mod lab;
mod live;
mod oracle;
mod random;
mod tiers;
mod world;

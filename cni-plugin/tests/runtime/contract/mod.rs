//! The contract of a CNI plugin with its runtime: a test of each item in each version of the specification, and of
//! what runtimes are known to do. docs/cni-contract.md has the items with their tests.
//!
//! | file | holds |
//! |---|---|
//! | `add` `del` `check` `status` `gc` | a command each |
//! | `input` | VERSION, the environment, and the configuration |
//! | `runtimes` | what runtimes do that no specification has |
//! | `page` | that the page and the tests agree |

mod add;
mod check;
mod del;
mod gc;
mod input;
mod page;
mod runtimes;
mod status;

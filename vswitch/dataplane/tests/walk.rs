//! The walk from end to end: what comes in, what leaves, what is counted.
//!
//! | file | holds |
//! |---|---|
//! | `scenarios`  | cases in text, `scenarios/*.walk` |
//! | `no_alloc`   | that a packet costs no allocation |
//! | `node`, `scenario` | what these share: a node and packets in text, and the cases' format |

mod no_alloc;
mod node;
mod scenario;
mod scenarios;

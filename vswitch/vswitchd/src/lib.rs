//! The daemon of a node.

#![forbid(unsafe_code)]

pub mod config;
pub mod journal;
pub mod model;
pub mod worker;

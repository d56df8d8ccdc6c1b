//! What a trace tells people.
//!
//! Enters: what each door of the walk found, and how ports are called here. Leaves: one line a
//! door, and one for the verdict, as `vswitchctl trace` prints them.

#[cfg(test)]
mod tests;

use api::Door;
use dataplane::tables::PortId;
use dataplane::{Trace, Verdict};

/// How [`PortId`] shows itself.
const NUMBERED: &str = "port ";

/// One line for each door, in the order in which the packet passed them.
pub(super) fn doors(trace: &Trace, name: &impl Fn(PortId) -> String) -> Vec<Door> {
    let line = |said: &dataplane::Said| Door {
        door: said.door.into(),
        said: with_names(&said.what, name),
    };
    trace.said.iter().map(line).collect()
}

/// The end of the walk, in one line.
pub(super) fn verdict(verdict: &Verdict, name: &impl Fn(PortId) -> String) -> String {
    with_names(&verdict.describe(), name)
}

/// The datapath's words, with the names of ports in place of their numbers.
fn with_names(words: &str, name: &impl Fn(PortId) -> String) -> String {
    let mut named = String::with_capacity(words.len());
    let mut rest = words;
    while let Some((before, after)) = rest.split_once(NUMBERED) {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = after.split_at(digits);
        named.push_str(before);
        match number.parse().map(PortId) {
            Ok(id) => named.push_str(&name(id)),
            Err(_) => named.push_str(NUMBERED),
        }
        rest = behind;
    }
    named + rest
}

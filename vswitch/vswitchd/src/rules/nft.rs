//! What listings of `nft` show of our table and of the node's firewall.
//!
//! Enters: listings, by way of `program`. Leaves: the table's owner, its elements and counters, and firewalls that
//! drop; to `table`. Nothing is changed.

use std::fs;
use std::net::IpAddr;

use controlplane::desired::nft_table::{Elements, OWNER_MARK, TABLE};

use super::program::Program;
use crate::error::{Error, Result};

/// What nft prints about a table that is not there.
const ABSENT: &str = "No such file or directory";

/// The owner of the table with our name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// There is none.
    Nobody,
    /// This daemon, or one that ended without removing it.
    Us,
    /// Another program, as the sentence names it.
    Other(String),
}

/// The owner of the table that is there.
///
/// # Errors
/// If `nft` is missing, or cannot list the table.
pub(super) fn owner(program: &Program, host_interface: &str) -> Result<Owner> {
    match program.ask(&format!("list {TABLE}\n")) {
        Ok(listed) => Ok(judge(&listed, host_interface, is_interface)),
        Err(error) if is_absent(&error) => Ok(Owner::Nobody),
        Err(error) => Err(error),
    }
}

/// Whether a run failed because what it is about is not there.
#[must_use]
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Masquerade(why) if why.contains(ABSENT))
}

/// A table that names the port of a daemon that has ended is a leftover: the port ends with it.
fn judge(listed: &str, host_interface: &str, exists: impl Fn(&str) -> bool) -> Owner {
    let named = listed.split_once(OWNER_MARK).and_then(|(_, rest)| rest.split_once('"'));
    match named {
        Some((named, _)) if named == host_interface || !exists(named) => Owner::Us,
        Some((named, _)) => {
            Owner::Other(format!("belongs to another vswitchd, whose host port is {named}"))
        }
        None => Owner::Other("was not made by vswitchd".into()),
    }
}

fn is_interface(name: &str) -> bool {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| line.split_once(':')).any(|(known, _)| known.trim() == name)
}

/// Chains of others that drop what no rule of theirs accepts, out of a listing of chains.
#[must_use]
pub(super) fn forward_droppers(listed: &str) -> Vec<String> {
    let (mut table, mut chain) = ("", "");
    let mut droppers = Vec::new();
    for line in listed.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") {
            droppers.push(format!("{table} {chain}"));
        }
    }
    droppers
}

/// How many connections the counters of a listing stand at, together.
#[must_use]
pub(super) fn counted(listed: &str) -> u64 {
    let after = listed.split("counter packets ").skip(1);
    after.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Our table as the kernel has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    /// Everything but counters and elements of maps and sets.
    pub(super) frame: String,
    /// Elements of maps and sets.
    pub(super) elements: Elements,
}

/// Our table as the kernel has it.
///
/// # Errors
/// If `nft` is missing, or there is no such table.
pub(super) fn listed(program: &Program) -> Result<Listing> {
    let listed = program.ask(&format!("list {TABLE}\n"))?;
    Ok(take_apart(&without_counts(&listed)))
}

/// Elements follow `elements = {`, several a line or one, until `}`; those of a rule's own set do not.
fn take_apart(listed: &str) -> Listing {
    let mut listing = Listing { frame: String::new(), elements: Elements::default() };
    let (mut name, mut is_inside) = ("", false);
    for line in listed.lines() {
        let mut words = line.trim();
        if let Some(first) = words.strip_prefix("elements = {") {
            words = first;
        } else if !is_inside {
            let declared = words.strip_prefix("map ").or_else(|| words.strip_prefix("set "));
            name = declared.map_or(name, |declared| declared.trim_end_matches(" {"));
            listing.frame.push_str(line);
            listing.frame.push('\n');
            continue;
        }
        is_inside = !words.ends_with('}');
        for element in words.trim_end_matches('}').split(',').map(str::trim) {
            if !element.is_empty() {
                listing.elements.add(name, plain(element));
            }
        }
    }
    listing
}

/// An element with its addresses as we write them.
fn plain(element: &str) -> String {
    let words = element.split_whitespace();
    let plain = |word: &str| word.parse::<IpAddr>().map_or(word.to_owned(), |ip| ip.to_string());
    words.map(plain).collect::<Vec<_>>().join(" ")
}

/// A listing in which every counter stands at nothing.
fn without_counts(listed: &str) -> String {
    let mut words = listed.split(' ');
    let mut plain = Vec::new();
    while let Some(word) = words.next() {
        plain.push(word);
        if matches!(word, "packets" | "bytes") {
            words.next();
        }
    }
    plain.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Elements, Owner, counted, forward_droppers, judge, take_apart, without_counts};

    #[test]
    fn a_table_is_ours_by_its_mark_alone() {
        let ours = "table inet vswitch {\n  chain owner {\n    return comment \"vswitchd, host port vsw0\"\n  }\n}\n";
        assert_eq!(judge(ours, "vsw0", |_| true), Owner::Us);
        // A table of a daemon that has ended, under another name.
        assert_eq!(judge(ours, "vsw1", |name| name != "vsw0"), Owner::Us);
        assert!(matches!(judge(ours, "vsw1", |_| true), Owner::Other(why) if why.contains("vsw0")));
        let foreign =
            "table inet vswitch {\n  chain c {\n    oifname != \"vsw0\" masquerade\n  }\n}";
        assert!(matches!(judge(foreign, "vsw0", |_| false), Owner::Other(_)));
    }

    #[test]
    fn a_firewall_that_drops_what_is_forwarded_is_named() {
        let listed = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\ntable inet own {\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(forward_droppers(listed), ["ip filter FORWARD"]);
    }

    #[test]
    fn a_listing_is_the_same_whatever_its_counters_say() {
        let rule = |counts: &str| format!("\t\toifname != \"vsw0\" counter {counts} masquerade\n");
        let (one, other) = (rule("packets 0 bytes 0"), rule("packets 12 bytes 900"));
        assert_eq!(without_counts(&one), without_counts(&other));
        assert_ne!(
            without_counts(&one),
            without_counts("\t\tcounter packets 0 bytes 0 masquerade\n")
        );
    }

    #[test]
    fn a_listing_is_taken_apart_into_its_frame_and_elements() {
        let listed = "table inet vswitch {
\tmap host_ports4 {
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service
\t\telements = { sctp . 9 : 198.18.1.2 . 9,
\t\t\t     udp . 53 : 198.18.1.3 . 53, tcp . 53 : 198.18.1.3 . 53 }
\t}

\tmap host_ports6 {
\t\telements = { tcp . 8080 : fd00:18:1:0::2 . 80 }
\t}

\tset direct4 {
\t\ttype ipv4_addr
\t}

\tchain services {
\t\tip saddr { 198.18.0.0/16, 198.19.0.0/16 } oifname \"vsw0\" masquerade
\t}
}
";
        let mut elements = Elements::default();
        for element in [
            "sctp . 9 : 198.18.1.2 . 9",
            "udp . 53 : 198.18.1.3 . 53",
            "tcp . 53 : 198.18.1.3 . 53",
        ] {
            elements.add("host_ports4", element.into());
        }
        elements.add("host_ports6", "tcp . 8080 : fd00:18:1::2 . 80".into());
        let listing = take_apart(listed);
        assert_eq!(listing.elements, elements);
        let without = |line: &&str| !line.contains("elements") && !line.contains("udp . 53");
        let frame: Vec<_> = listed.lines().filter(without).collect();
        assert_eq!(listing.frame.lines().collect::<Vec<_>>(), frame);
    }

    #[test]
    fn counters_are_added_up() {
        let listed =
            "a counter packets 12 bytes 900 masquerade\nb counter packets 3 bytes 9 masquerade\n";
        assert_eq!(counted(listed), 15);
        assert_eq!(counted("nothing"), 0);
    }
}

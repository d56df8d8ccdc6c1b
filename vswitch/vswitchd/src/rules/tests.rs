//! Orders to a program that plays `nft`: a shell script.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use controlplane::config::Config;
use controlplane::desired::NftTable;
use controlplane::model::Model;

use crate::sandbox::Sandbox;

use super::program::{LIMIT, Program};
use super::{InKernel, Report, Rules};

const PATIENCE: Duration = Duration::from_secs(60);

/// A table that is told from others by a prefix.
fn table(prefix: &str) -> NftTable {
    let text = format!(
        "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\n\
         cluster_prefixes = [\"198.18.0.0/16\"]\n[host]\nnon_masquerade_prefixes = [\"{prefix}\"]\n"
    );
    let config = Config::parse("f", &text).expect("valid");
    NftTable::of(&config, &Model::new(&config)).expect("it masquerades")
}

/// A program that does this with its first argument, a directory, and the script in `$script`.
fn playing(what: &str, dir: &Path, limit: Duration) -> Program {
    let script = format!("cd '{}' && script=$(cat) && {{ {what}; }}", dir.display());
    Program::of("sh", ["-c", &script], limit)
}

/// Plays a kernel without a table: what is changed is written down, and nothing is listed.
const WRITES_DOWN: &str = "case $script in \
    'list table'*) echo 'No such file or directory' >&2; exit 1;; \
    list*) ;; \
    *) echo \"$script\" >>changes;; esac";

/// Waits until the gate is there, for as long as there is its directory.
const WAITS: &str = "until test -e gate || ! test -d \"$PWD\"; do sleep 0.01; done";

#[test]
fn of_tables_that_are_ordered_while_nft_runs_the_newest_alone_is_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = playing(&format!("{WAITS}; {WRITES_DOWN}"), dir.path(), LIMIT);
    let mut rules = Rules::start_with(program, false, &Sandbox::off()).expect("a thread");
    rules.set(Some(&table("192.0.2.0/24")));
    // Until the first is under way, so that it is not replaced by those that follow.
    while rules.runs.since().is_none() {
        std::thread::yield_now();
    }
    rules.set(Some(&table("203.0.113.0/24")));
    rules.set(Some(&table("198.51.100.0/24")));
    assert_eq!(rules.ordered(), 3);
    assert!((1..=3).all(|number| rules.is_in_kernel(number) == InKernel::NotYet));
    assert!(rules.reports().is_empty(), "nothing is over");
    fs::write(dir.path().join("gate"), "").expect("the directory is ours");
    rules.wait(PATIENCE).expect("it is set");
    assert!((1..=3).all(|number| rules.is_in_kernel(number) == InKernel::Yes));
    let changes = fs::read_to_string(dir.path().join("changes")).expect("it was changed");
    assert!(changes.contains("192.0.2.0/24") && changes.contains("198.51.100.0/24"), "{changes}");
    assert!(!changes.contains("203.0.113.0/24"), "{changes}");
    let set: Vec<_> = rules
        .reports()
        .into_iter()
        .filter_map(|report| match report {
            Report::Set { number, in_force, .. } => Some((number, in_force)),
            _ => None,
        })
        .collect();
    let wanted = [(1, Some(table("192.0.2.0/24"))), (3, Some(table("198.51.100.0/24")))];
    assert_eq!(set, wanted);
}

#[test]
fn a_table_that_fails_is_told_with_the_one_in_force_and_the_next_makes_up_for_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let what = format!("if test -e broken; then echo broken >&2; exit 1; fi; {WRITES_DOWN}");
    let mut rules = Rules::start_with(playing(&what, dir.path(), LIMIT), false, &Sandbox::off())
        .expect("a thread");
    rules.set(Some(&table("192.0.2.0/24")));
    rules.wait(PATIENCE).expect("it is set");
    rules.reports();
    fs::write(dir.path().join("broken"), "").expect("the directory is ours");
    rules.set(Some(&table("203.0.113.0/24")));
    let why = rules.wait(PATIENCE).expect_err("it is broken");
    assert!(why.ends_with("nft says: broken"), "{why}");
    assert_eq!(rules.is_in_kernel(1), InKernel::Yes);
    assert_eq!(rules.is_in_kernel(2), InKernel::Failed(why));
    let reports = rules.reports();
    let [Report::Set { number: 2, outcome: Err(_), in_force }] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(in_force.as_ref(), Some(&table("192.0.2.0/24")));
    fs::remove_file(dir.path().join("broken")).expect("it is there");
    rules.set(Some(&table("203.0.113.0/24")));
    rules.wait(PATIENCE).expect("it is whole again");
    assert_eq!(rules.is_in_kernel(2), InKernel::Yes, "the later one has all of it");
}

#[test]
fn who_asks_while_nft_is_held_up_has_what_was_seen_last_and_then_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let what = format!(
        "if test -e broken; then {WAITS}; echo broken >&2; exit 1; fi; \
         case $script in *postrouting) echo 'counter packets 7 bytes 9';; *) {WRITES_DOWN};; esac"
    );
    let mut rules = Rules::start_with(playing(&what, dir.path(), LIMIT), false, &Sandbox::off())
        .expect("a thread");
    rules.set(Some(&table("192.0.2.0/24")));
    let look = rules.look(false);
    looked(&mut rules, look);
    assert_eq!(rules.seen().and_then(|seen| seen.connections), Some(7));
    assert_eq!(rules.note(Instant::now()), None);

    fs::write(dir.path().join("broken"), "").expect("the directory is ours");
    let look = rules.look(true);
    assert!(rules.reports().is_empty() && !rules.has_looked(look), "it waits for the gate");
    assert_eq!(rules.seen().and_then(|seen| seen.connections), Some(7));
    fs::write(dir.path().join("gate"), "").expect("the directory is ours");
    looked(&mut rules, look);
    let note = rules.note(Instant::now()).expect("nothing was seen");
    assert!(note.contains("cannot be looked at") && note.contains("nft says: broken"), "{note}");
    assert_eq!(rules.seen().and_then(|seen| seen.connections), Some(7));
    rules.set(None);
    assert_eq!(rules.seen(), None, "no table is wanted");
}

/// Waits for a look by its bell, as the control thread does.
fn looked(rules: &mut Rules, number: u64) {
    while !rules.has_looked(number) {
        let mut fds = [rustix::event::PollFd::new(&rules.bell, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("the bell can be waited for");
        rules.reports();
    }
}

//! A journal in a directory of its own, with whatever may stand in its way there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use api::{AttachmentId, Mac};
use controlplane::model::Edit;
use dataplane::tables::LocalAddresses;
use tempfile::TempDir;

use super::mend::{REWRITE_AFTER, SLACK_LINES};
use super::{Journal, JournalError, OnDisk, Replay, Rewrite, recorded_addresses};
use crate::sandbox::Sandbox;

const PATIENCE: Duration = Duration::from_secs(20);

fn edit(number: u8) -> Edit {
    Edit::Fdb {
        bridge: "default".into(),
        mac: Mac([2, 0, 0, 0, 0, number]),
        vtep: "198.51.100.12".parse().expect("an address"),
    }
}

fn release(name: &str) -> Edit {
    let attachment = AttachmentId { container_id: name.into(), ifname: "eth0".into() };
    Edit::NoLease { attachment }
}

/// As a daemon does at its start: the model is what was read.
fn open(dir: &Path) -> (Journal, Replay) {
    let (mut journal, replay) = Journal::open(dir, &Sandbox::off()).expect("no newer version");
    journal.begin(replay.edits.clone(), true);
    settle(&mut journal);
    (journal, replay)
}

/// Waits until the disk has nothing more to report.
fn settle(journal: &mut Journal) {
    let is_waiting = |journal: &Journal| {
        journal.is_making_room
            || !matches!(journal.rewrite, Rewrite::No)
            || journal.is_on_disk(journal.written()) == OnDisk::NotYet
    };
    while is_waiting(journal) {
        let report = journal.disk.wait(PATIENCE).expect("the disk reports in time");
        journal.hear(report);
    }
}

/// As the daemon does some time later, with this model.
fn some_time_later(journal: &mut Journal, model: &[Edit]) {
    journal.tried = None;
    let now = Instant::now();
    journal.mend(now);
    settle(journal);
    if journal.wants_rewrite(now + REWRITE_AFTER) {
        journal.rewrite(model.to_vec());
        settle(journal);
    }
}

fn read(dir: &Path) -> Vec<Edit> {
    let (mut journal, replay) = Journal::open(dir, &Sandbox::off()).expect("no newer version");
    // Its thread is done with the directory.
    settle(&mut journal);
    assert_eq!(replay.warnings, [] as [String; 0]);
    replay.edits
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_appended_comes_back_in_order() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, replay) = open(&dir.path().join("made"));
    assert!(replay.edits.is_empty() && replay.warnings.is_empty());
    for number in 1..=3 {
        journal.append(&[edit(number)]).expect("room");
    }
    // Killed before anything of it was synced.
    drop(journal);
    let (mut journal, replay) = open(&dir.path().join("made"));
    assert_eq!(replay.edits, [edit(1), edit(2), edit(3)]);
    journal.append(&[edit(4)]).expect("room");
    assert_eq!(read(&dir.path().join("made")), [edit(1), edit(2), edit(3), edit(4)]);
    assert_eq!(journal.trouble(), None);
}

#[test]
fn lines_are_on_disk_once_the_thread_says_so() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    for number in 1..=10 {
        journal.append(&[edit(number)]).expect("room");
    }
    let (first, last) = (journal.written() - 9, journal.written());
    assert_eq!(journal.is_on_disk(last), OnDisk::NotYet);
    settle(&mut journal);
    assert_eq!((journal.is_on_disk(first), journal.is_on_disk(last)), (OnDisk::Yes, OnDisk::Yes));
}

#[test]
fn a_damaged_file_is_kept_and_what_is_whole_is_used() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    (1..=3).for_each(|number| journal.append(&[edit(number)]).expect("room"));
    drop(journal);
    let path = dir.path().join("journal");
    let mut bytes = fs::read(&path).expect("there");
    let at = bytes.iter().rposition(|byte| *byte == b'{').expect("lines");
    bytes[at] ^= 1;
    fs::write(&path, &bytes).expect("room");

    let (mut journal, replay) = open(dir.path());
    assert_eq!(replay.edits, [edit(1), edit(2)]);
    assert!(matches!(&replay.warnings[..], [one] if one.contains("line 5 is damaged")));
    let warnings = journal.take_warnings();
    let aside = names(dir.path()).into_iter().find(|name| name.contains("damaged"));
    let aside = aside.expect("it is kept");
    assert!(matches!(&warnings[..], [one] if one.contains(&aside)), "{warnings:?}");
    // Nothing is added to it.
    journal.append(&[edit(7)]).expect("room");
    assert_eq!(fs::read(dir.path().join(&aside)).expect("there"), bytes);
    assert_eq!(read(dir.path()), [edit(1), edit(2), edit(7)]);
}

#[test]
fn nothing_is_added_behind_what_is_not_enough() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    journal.append(&[edit(1)]).expect("room");
    drop(journal);
    let (mut journal, _) = Journal::open(dir.path(), &Sandbox::off()).expect("ours");
    journal.begin(vec![edit(2)], false);
    journal.append(&[edit(3)]).expect("it was waited for");
    assert_eq!(read(dir.path()), [edit(2), edit(3)]);
}

#[test]
fn a_torn_line_is_cut_off_before_the_next_is_added() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    (1..=2).for_each(|number| journal.append(&[edit(number)]).expect("room"));
    drop(journal);
    let path = dir.path().join("journal");
    let bytes = fs::read(&path).expect("there");
    fs::write(&path, &bytes[..bytes.len() - 9]).expect("room");
    let (mut journal, replay) = Journal::open(dir.path(), &Sandbox::off()).expect("ours");
    assert!(matches!(&replay.warnings[..], [one] if one.contains("torn")), "{replay:?}");
    journal.append(&[edit(3)]).expect("room");
    assert_eq!(read(dir.path()), [edit(1), edit(3)]);
}

#[test]
fn the_nodes_addresses_are_read_without_touching_anything() {
    let dir = TempDir::new().expect("a directory");
    assert_eq!(recorded_addresses(dir.path()), LocalAddresses::default());
    assert_eq!(names(dir.path()), [""; 0]);
    let own = |number| Some([198, 51, 100, number].into());
    let (mut journal, _) = open(dir.path());
    for number in [11, 12] {
        journal.append(&[Edit::OwnAddresses { v4: own(number), v6: None }]).expect("room");
    }
    journal.append(&[edit(1)]).expect("room");
    assert_eq!(recorded_addresses(dir.path()), LocalAddresses { v4: own(12), v6: None });
}

#[test]
fn a_journal_of_version_1_is_taken_over() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("journal");
    let old = "vswitch-journal 1\n54059cfebe14a309 [{\"edit\":\"no-route\",\"prefix\":\"198.18.9.0/24\"}]\n";
    fs::write(&path, old).expect("room");
    let (journal, replay) = open(dir.path());
    let prefix = "198.18.9.0/24".parse().expect("a prefix");
    assert_eq!((&replay.edits[..], replay.warnings.len()), (&[Edit::NoRoute { prefix }][..], 0));
    drop(journal);
    assert!(fs::read_to_string(&path).expect("there").starts_with("vswitch-journal 2\n"));
    assert_eq!(read(dir.path()), replay.edits);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("journal");
    fs::write(&path, "vswitch-journal 3\nwhatever\n").expect("room");
    let refused = Journal::open(dir.path(), &Sandbox::off()).expect_err("newer");
    assert!(matches!(refused, JournalError::Newer { theirs: 3, .. }));
    assert_eq!(fs::read(&path).expect("there"), b"vswitch-journal 3\nwhatever\n");
}

#[test]
fn written_anew_it_has_the_snapshot_and_what_came_meanwhile() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    let now = Instant::now() + Duration::from_secs(2);
    while !journal.wants_rewrite(now) {
        journal.append(&[edit(1)]).expect("room");
    }
    assert!(journal.lines > SLACK_LINES);
    journal.rewrite(vec![edit(7), edit(8)]);
    // One line while the snapshot is written, and one while it is put in place.
    journal.append(&[edit(9)]).expect("room");
    while matches!(journal.rewrite, Rewrite::Snapshot(_)) {
        let report = journal.disk.wait(PATIENCE).expect("in time");
        journal.hear(report);
    }
    journal.append(&[edit(10)]).expect("room");
    settle(&mut journal);
    assert_eq!(read(dir.path()), [edit(7), edit(8), edit(9), edit(10)]);
    assert!(!journal.wants_rewrite(now + PATIENCE));
    journal.append(&[edit(11)]).expect("room");
    assert_eq!(read(dir.path()).last(), Some(&edit(11)));
    assert_eq!(names(dir.path()), ["journal", "journal.reserve"]);
}

#[test]
fn a_link_in_the_way_is_refused_by_name_and_all_is_well_without_it() {
    let dir = TempDir::new().expect("a directory");
    let other = dir.path().join("precious");
    fs::write(&other, "of somebody else").expect("room");
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("a free name");
    symlink(&other, state.join("journal.new")).expect("a free name");
    let (mut journal, _) = open(&state);
    let trouble = journal.trouble().expect("it cannot be written");
    assert!(trouble.contains("journal.new is a symbolic link"), "{trouble}");
    let refused = journal.append(&[edit(1)]).expect_err("there is no journal");
    assert_eq!(refused.to_string(), trouble);
    assert_eq!(fs::read_to_string(&other).expect("there"), "of somebody else");
    fs::remove_file(state.join("journal.new")).expect("there");
    some_time_later(&mut journal, &[edit(2)]);
    assert_eq!(journal.trouble(), None);
    journal.append(&[edit(3)]).expect("room");
    assert_eq!(read(&state), [edit(2), edit(3)]);
    // Where lines can still be added, it grows, and that is named.
    symlink(&other, state.join("journal.new")).expect("a free name");
    journal.rewrite(vec![edit(2), edit(3)]);
    settle(&mut journal);
    assert_eq!(journal.trouble(), None);
    assert!(journal.growth().is_some_and(|note| note.contains("journal.new is a symbolic link")));
    journal.append(&[edit(4)]).expect("room");
    fs::remove_file(state.join("journal.new")).expect("there");
    some_time_later(&mut journal, &[edit(2), edit(3), edit(4)]);
    assert_eq!((journal.growth(), read(&state)), (None, vec![edit(2), edit(3), edit(4)]));
}

#[test]
fn a_journal_that_cannot_be_read_is_never_replaced() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("journal");
    fs::create_dir(&path).expect("a free name");
    let (mut journal, replay) = open(dir.path());
    assert_eq!(replay.edits, []);
    some_time_later(&mut journal, &[edit(1)]);
    let trouble = journal.trouble().expect("it cannot be read");
    assert!(trouble.contains("is a directory") && trouble.contains("move it away"), "{trouble}");
    assert_eq!(journal.append(&[release("a")]).expect_err("no journal").to_string(), trouble);
    assert_eq!(journal.is_on_disk(journal.written()), OnDisk::Failed(trouble));
    // Moved away, as it says.
    fs::rename(&path, dir.path().join("away")).expect("a free name");
    some_time_later(&mut journal, &[edit(2)]);
    assert_eq!(journal.trouble(), None);
    assert_eq!(read(dir.path()), [edit(2)]);
}

#[test]
fn a_directory_that_cannot_be_made_is_made_later() {
    let dir = TempDir::new().expect("a directory");
    let parent = dir.path().join("parent");
    fs::write(&parent, "a file").expect("room");
    let state = parent.join("state");
    let (mut journal, _) = open(&state);
    assert!(journal.trouble().is_some());
    fs::remove_file(&parent).expect("there");
    some_time_later(&mut journal, &[edit(1)]);
    assert_eq!((journal.trouble(), read(&state)), (None, vec![edit(1)]));
}

#[test]
fn a_journal_with_another_name_is_not_added_to() {
    let dir = TempDir::new().expect("a directory");
    let (mut journal, _) = open(dir.path());
    journal.append(&[edit(1)]).expect("room");
    drop(journal);
    let copy = dir.path().join("copy");
    fs::hard_link(dir.path().join("journal"), &copy).expect("a free name");
    let before = fs::read(&copy).expect("there");
    let (mut journal, _) = open(dir.path());
    journal.append(&[edit(2)]).expect("room");
    assert_eq!(fs::read(&copy).expect("there"), before);
    assert_eq!(read(dir.path()), [edit(1), edit(2)]);
}

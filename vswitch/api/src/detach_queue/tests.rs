//! What one process queues, another finds; and what else it may find there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::{DetachQueue, MAX_QUEUED, QueueError, entry_name};
use crate::AttachmentId;

fn id(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.into(), ifname: "eth0".into() }
}

fn state() -> (TempDir, DetachQueue) {
    let dir = TempDir::new().expect("a directory");
    let queue = DetachQueue::open(dir.path()).expect("made");
    (dir, queue)
}

fn push(queue: &DetachQueue, container: &str) -> Result<(), QueueError> {
    queue.lock(Instant::now()).expect("nobody has it").push(&id(container))
}

fn containers(queue: &DetachQueue) -> Vec<String> {
    let queued = queue.queued().expect("readable");
    let mut ids: Vec<_> = queued.attachments.into_iter().map(|id| id.container_id).collect();
    ids.sort();
    ids
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("del-queue")).expect("there");
    entries.map(|entry| entry.expect("readable").path()).collect()
}

#[test]
fn what_is_queued_is_found_once_and_goes_when_it_is_removed() {
    let (dir, queue) = state();
    let long = "c".repeat(256);
    for container in ["a", "b", "a", &long] {
        push(&queue, container).expect("room");
    }
    // Another process, later.
    let other = DetachQueue::open(dir.path()).expect("there");
    assert_eq!(containers(&other), ["a", "b", &long]);
    other.remove(&id("a")).expect("there");
    other.remove(&id("a")).expect("gone is as good");
    assert_eq!(containers(&queue), ["b", &long]);
    let mode = fs::metadata(&files(dir.path())[0]).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "a daemon that is another user reads it");
}

#[test]
fn the_same_name_in_two_interfaces_is_two_entries() {
    let other = AttachmentId { ifname: "net1".into(), ..id("a") };
    assert_ne!(entry_name(&id("a")), entry_name(&other));
    let (one, two) = (id("ab"), AttachmentId { container_id: "a".into(), ifname: "beth0".into() });
    assert_ne!(entry_name(&one), entry_name(&two));
}

#[test]
fn a_full_queue_takes_no_more_but_what_it_has() {
    let (dir, queue) = state();
    for number in 0..MAX_QUEUED - 1 {
        let name = dir.path().join("del-queue").join(format!("{number}.json"));
        fs::write(name, "{}").expect("room");
    }
    push(&queue, "last").expect("room");
    push(&queue, "last").expect("it is there");
    assert!(matches!(push(&queue, "more"), Err(QueueError::Full { .. })));
}

#[test]
fn one_process_at_a_time_adds_to_it() {
    let (dir, queue) = state();
    let held = queue.lock(Instant::now()).expect("nobody has it");
    let other = DetachQueue::open(dir.path()).expect("there");
    assert!(matches!(other.lock(Instant::now()), Err(QueueError::Locked { .. })));
    drop(held);
    other.lock(Instant::now()).expect("released");
}

#[test]
fn what_a_killed_writer_left_is_no_entry_and_in_nobodys_way() {
    let (dir, queue) = state();
    let half = dir.path().join("del-queue").join(format!("{}.new", entry_name(&id("a"))));
    let leave = || fs::write(&half, "{\"contai").expect("room");
    leave();
    push(&queue, "a").expect("room");
    assert_eq!(containers(&queue), ["a"]);
    assert!(!half.exists());
    // Somebody writes, as far as the daemon sees.
    leave();
    let other = DetachQueue::open(dir.path()).expect("there");
    let held = other.lock(Instant::now()).expect("nobody has it");
    assert_eq!(containers(&queue), ["a"]);
    assert!(half.exists());
    drop(held);
    assert_eq!(containers(&queue), ["a"]);
    assert!(!half.exists());
}

#[test]
fn what_is_no_entry_is_set_aside_and_links_are_not_followed() {
    let (dir, queue) = state();
    let inside = |name: &str| dir.path().join("del-queue").join(name);
    // The right content, elsewhere: a link to it is no entry.
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, serde_json::to_vec(&id("linked")).expect("encodes")).expect("room");
    symlink(&elsewhere, inside(&entry_name(&id("linked")))).expect("made");
    fs::write(inside("0.json"), "").expect("room");
    fs::write(inside("1.json"), "x".repeat(10_000)).expect("room");
    // The right content under the name of another.
    fs::write(inside("2.json"), serde_json::to_vec(&id("a")).expect("encodes")).expect("room");
    fs::create_dir(inside("3.json")).expect("made");
    push(&queue, "good").expect("room");

    let queued = queue.queued().expect("readable");
    assert_eq!(queued.attachments, [id("good")]);
    assert_eq!(queued.damaged.len(), 5, "{:?}", queued.damaged);
    for path in &queued.damaged {
        assert!(path.to_string_lossy().ends_with(".damaged") && path.symlink_metadata().is_ok());
    }
    assert!(elsewhere.exists());
    assert_eq!(queue.queued().expect("readable").damaged.len(), 0, "once");

    // A link where a new entry is written is replaced, and what it leads to stays as it is.
    let before = fs::read(&elsewhere).expect("there");
    let new = inside(&format!("{}.new", entry_name(&id("next"))));
    symlink(&elsewhere, &new).expect("made");
    push(&queue, "next").expect("room");
    assert_eq!(fs::read(&elsewhere).expect("there"), before);
}

#[test]
fn a_link_is_no_queue_and_without_a_state_directory_there_is_none() {
    let dir = TempDir::new().expect("a directory");
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    symlink(&elsewhere, dir.path().join("del-queue")).expect("made");
    assert!(matches!(DetachQueue::open(dir.path()), Err(QueueError::Io { .. })));
    assert!(matches!(DetachQueue::open(&dir.path().join("none")), Err(QueueError::Io { .. })));
    assert!(!dir.path().join("none").exists());
    // The state directory itself may be one.
    let state = dir.path().join("state");
    symlink(&elsewhere, &state).expect("made");
    push(&DetachQueue::open(&state).expect("made"), "a").expect("room");
}

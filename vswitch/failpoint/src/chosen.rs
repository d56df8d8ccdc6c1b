//! The faults that the environment asks for, and their happening.
//!
//! Whatever is not understood is a panic: a test would prove nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, process, thread};

use crate::{Fault, PLACES};

/// Names the faults of this process.
const VARIABLE: &str = "VSWITCH_FAILPOINTS";

/// Called at the start of a program: what the environment asks for must be understood.
///
/// # Panics
/// If it is not, or names a place that is none.
pub fn begin() {
    let (text, _) = asked();
    drop(parse(&text));
}

/// A place where something can be made to go wrong.
///
/// # Errors
/// If that was asked for.
///
/// # Panics
/// If what was asked for is not understood, or the place is not in [`PLACES`].
pub fn hit(place: &str) -> Result<(), Fault> {
    assert!(is_known(place), "{place} is missing in failpoint::PLACES");
    match take(place) {
        None => {}
        Some(Kind::Delay(time)) => thread::sleep(time),
        Some(Kind::Error) => return Err(Fault { place: place.to_owned() }),
        Some(Kind::Kill) => {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            process::abort();
        }
    }
    Ok(())
}

/// As [`hit`], where nothing can fail: the process waits there, or ends.
///
/// # Panics
/// As [`hit`], and if it is asked to fail.
pub fn pass(place: &str) {
    assert!(hit(place).is_ok(), "{place} cannot fail");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Delay(Duration),
    Error,
    Kill,
}

struct Chosen {
    place: String,
    kind: Kind,
    /// So many times more.
    left: u64,
}

/// The text that was understood last, and what is left of it.
static CHOSEN: Mutex<(String, Vec<Chosen>)> = Mutex::new((String::new(), Vec::new()));

/// The fault that is to happen here now.
fn take(place: &str) -> Option<Kind> {
    let (text, file) = asked();
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if chosen.0 != text {
        *chosen = (text.clone(), parse(&text));
    }
    let fault = chosen.1.iter_mut().find(|fault| fault.place == place && fault.left > 0)?;
    // Of those that come here at the same time, the one that removes the file.
    if file.is_some_and(|file| fs::remove_file(file).is_err()) {
        return None;
    }
    fault.left -= 1;
    Some(fault.kind)
}

/// The text of the environment, and its file if it is in one.
fn asked() -> (String, Option<String>) {
    let text = env::var(VARIABLE).unwrap_or_default();
    match text.strip_prefix('@') {
        Some(file) => {
            let inside = fs::read_to_string(file).unwrap_or_default().trim().to_owned();
            (inside, Some(file.to_owned()))
        }
        None => (text, None),
    }
}

fn parse(text: &str) -> Vec<Chosen> {
    text.split(',').filter(|one| !one.is_empty()).map(parse_one).collect()
}

fn parse_one(text: &str) -> Chosen {
    let fault = text.split_once('=').and_then(|(place, fault)| {
        let (kind, number) = fault.split_once(':').unwrap_or((fault, ""));
        let (kind, left) = match (kind, number.parse()) {
            ("delay", Ok(millis)) => (Kind::Delay(Duration::from_millis(millis)), u64::MAX),
            ("error", Ok(times)) => (Kind::Error, times),
            ("error", Err(_)) if number.is_empty() => (Kind::Error, u64::MAX),
            ("kill", Err(_)) if number.is_empty() => (Kind::Kill, 1),
            _ => return None,
        };
        Some(Chosen { place: place.to_owned(), kind, left })
    });
    let fault = fault.unwrap_or_else(|| panic!("{VARIABLE}: {text:?} is not PLACE=FAULT"));
    assert!(is_known(&fault.place), "{VARIABLE}: no place is named {:?}", fault.place);
    fault
}

fn is_known(name: &str) -> bool {
    PLACES.iter().any(|place| place.name == name)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::time::Duration;

    use super::{Kind, parse};

    #[test]
    fn faults_are_read() {
        let faults = parse("journal-sync=delay:250,add-attach=error:2,journal-write=kill");
        let read: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.left)).collect();
        let delay = Kind::Delay(Duration::from_millis(250));
        assert_eq!(read, [(delay, u64::MAX), (Kind::Error, 2), (Kind::Kill, 1)]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn what_is_no_fault_or_no_place_is_found_out() {
        for text in ["journal-sync", "journal-sync=delay", "journal-sync=kill:2", "nowhere=kill"] {
            assert!(catch_unwind(|| parse(text).len()).is_err(), "{text}");
        }
    }
}

//! The session table that the workers share.
//!
//! Enters: the machine's boot id and cores. Leaves: an empty table, and the moment from which its time is
//! counted.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::session::{Header, SessionTable, default_buckets};
use rustix::time::{ClockId, clock_gettime};
use worker::SharedState;

/// The table, as large as the machine has cores for.
///
/// # Errors
/// If its memory cannot be had.
pub fn open(boot_id: &str) -> io::Result<SharedState> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let header = Header {
        boot_id: boot_number(boot_id),
        // Keyed by random numbers of the kernel.
        seed: RandomState::new().hash_one("sessions"),
        buckets: default_buckets(cores),
    };
    let sessions = SessionTable::on_heap(&header).map_err(io::Error::other)?;
    Ok(SharedState { sessions: Arc::new(sessions), origin: booted() })
}

/// When the kernel's monotonic clock began.
fn booted() -> Instant {
    let clock = clock_gettime(ClockId::Monotonic);
    let since = Duration::new(clock.tv_sec.unsigned_abs(), clock.tv_nsec as u32);
    let now = Instant::now();
    now.checked_sub(since).unwrap_or(now)
}

/// A boot id, 32 digits of a UUID, as a number; zero if the kernel told none.
fn boot_number(id: &str) -> u128 {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{boot_number, booted};
    use std::time::Instant;

    #[test]
    fn a_boot_id_is_a_number() {
        let id = "e80ec9cc-a6c5-4e82-9bca-67124ec9a299";
        assert_eq!(boot_number(id), 0xe80e_c9cc_a6c5_4e82_9bca_6712_4ec9_a299);
        assert_eq!(boot_number(""), 0);
    }

    #[test]
    fn the_clock_began_before() {
        assert!(booted() < Instant::now());
    }
}

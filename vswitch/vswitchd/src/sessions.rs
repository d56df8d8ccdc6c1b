//! The session table that the workers share.
//!
//! Enters: the directory of the control socket, the machine's boot id and cores. Leaves: the table in
//! its files there, with the sessions of a former daemon, and the moment from which its time is counted.
//! Where the files cannot be used the table is on the heap: it serves, and ends with the daemon.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::Millis;
use dataplane::session::{
    Adoption, Header, SessionMemory, SessionTable, WhyAnew, default_buckets, note_lost,
    words_affinity, words_v4, words_v6,
};
use frame::Words;
use netio::session_file::{self, SessionFile};
use rustix::time::{ClockId, clock_gettime};
use worker::SharedState;

/// The table, and what became of it.
pub struct OpenSessions {
    /// The table and its time.
    pub shared: SharedState,
    /// What was chosen, as a sentence.
    pub choice: String,
    /// What is wrong with the files.
    pub warning: Option<String>,
}

/// The table, as large as the machine has cores for.
///
/// # Errors
/// If its memory cannot be had.
pub fn open(dir: &Path, boot_id: &str) -> io::Result<OpenSessions> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let header = Header {
        boot_id: boot_number(boot_id),
        // Keyed by random numbers of the kernel.
        seed: RandomState::new().hash_one("sessions"),
        buckets: default_buckets(cores),
    };
    let origin = booted();
    let now = Millis(origin.elapsed().as_millis() as u64).tick();
    let (table, choice, warning) = match memory(dir, header.buckets) {
        Ok(memory) => {
            let adopted = SessionTable::adopt(memory, &header, now);
            let (table, adoptions) = adopted.map_err(io::Error::other)?;
            (table, told(&adoptions), None)
        }
        Err(error) => {
            let memory = SessionMemory::on_heap(header.buckets);
            for words in [&memory.v4, &memory.v6, &memory.affinity] {
                note_lost(words);
            }
            let adopted = SessionTable::adopt(memory, &header, now);
            let (table, _) = adopted.map_err(io::Error::other)?;
            let warning = format!(
                "sessions end with this daemon, as their files cannot be used: {}",
                crate::error::chain(&error)
            );
            (table, "sessions: in memory alone".to_owned(), Some(warning))
        }
    };
    let shared = SharedState { sessions: Arc::new(table), origin };
    Ok(OpenSessions { shared, choice, warning })
}

fn memory(dir: &Path, buckets: u32) -> netio::Result<SessionMemory> {
    let open = |file, words| -> netio::Result<Words> {
        let opened = session_file::open(dir, file, words)?;
        if opened.was_emptied {
            note_lost(&opened.words);
        }
        Ok(opened.words)
    };
    Ok(SessionMemory {
        v4: open(SessionFile::V4, words_v4(buckets))?,
        v6: open(SessionFile::V6, words_v6(buckets))?,
        affinity: open(SessionFile::Affinity, words_affinity(buckets))?,
    })
}

/// What became of the files: of the sessions of IPv4 and IPv6, and of affinities.
fn told(adoptions: &[Adoption; 3]) -> String {
    for adoption in adoptions {
        if let Adoption::Anew(why) = adoption
            && !matches!(why, WhyAnew::Fresh | WhyAnew::Boot)
        {
            return format!("sessions: begun anew, as a file is no use ({why})");
        }
    }
    let count = |adoption: &Adoption| match adoption {
        Adoption::Adopted { sessions, .. } => *sessions,
        Adoption::Anew(_) => 0,
    };
    let [v4, v6, affinities] = adoptions.each_ref().map(count);
    let affinities = match affinities {
        0 => String::new(),
        some => format!(", and {some} affinities of clients to backends"),
    };
    format!("sessions: {} of a former daemon go on{affinities}", v4 + v6)
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

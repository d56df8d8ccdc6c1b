//! Faults at chosen places, for tests of the built daemon.
//!
//! Enters: `VSWITCH_FAILPOINTS`, read once, such as `journal-sync=delay:250,journal-write=error:2`.
//! Leaves: a delay, an error or the end of the process, at the places that are named. Without the
//! feature `failpoints`, which no build for use has, nothing of it is compiled.
//!
//! | fault | the place |
//! |---|---|
//! | `delay:MS` | waits so many milliseconds, each time |
//! | `error`    | fails each time; `error:N`, the first N times |
//! | `kill`     | ends the process as SIGKILL does |

/// A place where something can be made to go wrong.
///
/// # Errors
/// If that was asked for.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_name: &str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub use chosen::hit;

#[cfg(feature = "failpoints")]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use std::{env, io, process, thread};

    enum Fault {
        Delay(Duration),
        /// So many times more.
        Error(AtomicU64),
        Kill,
    }

    static CHOSEN: OnceLock<Vec<(String, Fault)>> = OnceLock::new();

    /// A place where something can be made to go wrong.
    ///
    /// # Errors
    /// If that was asked for.
    ///
    /// # Panics
    /// If `VSWITCH_FAILPOINTS` is not understood: a test would prove nothing.
    pub fn hit(name: &str) -> io::Result<()> {
        let text = || env::var("VSWITCH_FAILPOINTS").unwrap_or_default();
        let chosen = CHOSEN.get_or_init(|| parse(&text()));
        for (_, fault) in chosen.iter().filter(|(place, _)| place == name) {
            match fault {
                Fault::Delay(time) => thread::sleep(*time),
                Fault::Error(left) => {
                    let fewer = |left: u64| left.checked_sub(1);
                    if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
                        return Err(io::Error::other(format!("the failpoint {name}")));
                    }
                }
                Fault::Kill => {
                    let own = rustix::process::getpid();
                    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                    process::abort();
                }
            }
        }
        Ok(())
    }

    fn parse(text: &str) -> Vec<(String, Fault)> {
        text.split(',').filter(|one| !one.is_empty()).map(parse_one).collect()
    }

    fn parse_one(text: &str) -> (String, Fault) {
        let fault = text.split_once('=').and_then(|(name, fault)| {
            let (kind, number) = fault.split_once(':').unwrap_or((fault, ""));
            let fault = match (kind, number.parse()) {
                ("delay", Ok(millis)) => Fault::Delay(Duration::from_millis(millis)),
                ("error", Ok(times)) => Fault::Error(AtomicU64::new(times)),
                ("error", Err(_)) if number.is_empty() => Fault::Error(AtomicU64::new(u64::MAX)),
                ("kill", Err(_)) if number.is_empty() => Fault::Kill,
                _ => return None,
            };
            Some((name.to_owned(), fault))
        });
        fault.unwrap_or_else(|| panic!("VSWITCH_FAILPOINTS: {text:?} is not NAME=FAULT"))
    }
}

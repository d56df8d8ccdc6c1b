//! The end of a thread without which the daemon is of no use.

use std::{process, thread};

/// Ends the process where the thread panics that has it: without that thread no client would be answered any more,
/// and the next daemon has all that was written. The panic has said what it was.
pub(crate) struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if thread::panicking() {
            process::exit(1);
        }
    }
}

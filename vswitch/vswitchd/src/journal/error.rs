//! What is wrong with a journal, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why there is no journal, or no line more in it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something else has the name of one of our files.
    #[error("{path} is {what}")]
    NotAFile {
        /// The name.
        path: PathBuf,
        /// What has it.
        what: &'static str,
    },
    /// Another version wrote it.
    #[error(
        "{path} was written by a newer version (format {theirs}, this one reads {}); \
         start that version, or move the file away to begin without state",
        journal_format::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        theirs: u32,
    },
    /// An edit that JSON cannot hold: never of this program's making.
    #[error("an edit cannot be written")]
    Unwritable(#[source] serde_json::Error),
    /// Lines before may not be on disk.
    #[error("{0} is not on disk as it was written, and has to be written anew")]
    Lost(PathBuf),
    /// It cannot be written now; the reason.
    #[error("{0}")]
    Unavailable(String),
}

pub(super) fn unread(error: &JournalError) -> String {
    let text = api::chain(error);
    format!(
        "{text}; leases that it may hold are unknown: restart vswitchd when it can be read, or move it away to go on from what is known"
    )
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error, and what to do.
pub(super) fn described(error: &JournalError) -> String {
    let text = api::chain(error);
    match error {
        JournalError::Io { source, .. } if is_full(source) => format!("{text}: make room there"),
        JournalError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            format!("{text}: make it writable")
        }
        JournalError::NotAFile { .. } => format!("{text}: move it away"),
        _ => text,
    }
}

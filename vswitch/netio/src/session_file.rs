//! The files under the session table: mapped, so that sessions and affinities outlive the daemon.
//!
//! Enters: a directory, on a tmpfs where sessions should end with the machine's uptime, and a number
//! of words. Leaves: [`Words`] that every process which opens the same file shares. What is in them is
//! not known here. Who opens them holds the daemon's lock: two writers of one table are not intended.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use frame::Words;

use crate::error::{Error, Result};

/// What a file of the session table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFile {
    /// `sessions4`: sessions of IPv4.
    V4,
    /// `sessions6`: sessions of IPv6.
    V6,
    /// `affinity`: which backend a client of a service had last.
    Affinity,
}

/// The path of a file in this directory.
#[must_use]
pub fn path(dir: &Path, file: SessionFile) -> PathBuf {
    dir.join(match file {
        SessionFile::V4 => "sessions4",
        SessionFile::V6 => "sessions6",
        SessionFile::Affinity => "affinity",
    })
}

/// A file that is mapped.
#[derive(Debug)]
pub struct OpenedFile {
    /// What is in it.
    pub words: Words,
    /// It had another size, and what was in it is gone.
    pub was_emptied: bool,
}

/// Maps the file of `words` words, and makes it if it is not there. One of another size is emptied: its
/// words are zeros then, as those of a new file. No other user may read it.
///
/// # Errors
/// If the path is a link or no file, or belongs to another user, or a system call fails.
pub fn open(dir: &Path, file: SessionFile, words: usize) -> Result<OpenedFile> {
    let path = path(dir, file);
    let failed = |action| {
        let path = path.clone();
        move |source: io::Error| Error::SessionFile { action, path, source }
    };
    // Neither a link nor a pipe that somebody put there is opened, or waited for.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("read the attributes of"))?;
    // SAFETY: geteuid has no preconditions and cannot fail.
    let own = unsafe { libc::geteuid() };
    if !metadata.is_file() || metadata.uid() != own {
        let source = io::Error::other("it is no file, or another user's; remove it");
        return Err(failed("use")(source));
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
    let bytes = (words as u64).checked_mul(8).filter(|bytes| *bytes > 0);
    let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
        return Err(failed("size")(io::ErrorKind::InvalidInput.into()));
    };
    let was_emptied = metadata.len() != bytes as u64 && metadata.len() > 0;
    if metadata.len() != bytes as u64 {
        file.set_len(0).map_err(failed("empty"))?;
        file.set_len(bytes as u64).map_err(failed("size"))?;
    }
    let words = map(&file, bytes, words).map_err(failed("map"))?;
    Ok(OpenedFile { words, was_emptied })
}

fn map(file: &File, bytes: usize, words: usize) -> io::Result<Words> {
    // SAFETY: a new mapping at an address that the kernel chooses replaces none; the descriptor is open,
    // and the file has this many bytes.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mapping = Mapping { base, bytes };
    // SAFETY: the mapping is of `words` words and begins with a page. Nothing else in this process has
    // its address, and it is unmapped in `release` alone. What another process does to the words is seen
    // as stores to atomics; only the holder of the daemon's lock, which is this one, changes its length.
    Ok(unsafe { Words::from_mapping(base.cast(), words, move || mapping.unmap()) })
}

struct Mapping {
    base: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: it is an address and a length; a mapping belongs to the process, and any thread may undo it.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference to it allows nothing.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn unmap(self) {
        // SAFETY: the range is that of `map`, which is unmapped once, as `self` is taken; no reference
        // into it is left, as the last clone of its Words was dropped. It cannot fail for such a range.
        unsafe { libc::munmap(self.base.as_ptr(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::Ordering;

    use super::{OpenedFile, SessionFile, open, path};
    use crate::error::Error;

    const WORDS: usize = 1024;

    #[test]
    fn words_outlive_their_mapping_in_a_file_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let opened = |file| {
            let opened = open(dir.path(), file, WORDS).unwrap();
            assert!(!opened.was_emptied);
            opened.words
        };
        let words = opened(SessionFile::V4);
        assert_eq!(words.len(), WORDS);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[WORDS - 1].store(7, Ordering::Relaxed);
        // Shared while both are open, and there when none is.
        let again = opened(SessionFile::V4);
        assert_eq!(again[WORDS - 1].load(Ordering::Relaxed), 7);
        drop((words, again));
        let words = opened(SessionFile::V4);
        assert_eq!(words[WORDS - 1].load(Ordering::Relaxed), 7);
        for file in [SessionFile::V6, SessionFile::Affinity] {
            let other = opened(file);
            assert_eq!(other[WORDS - 1].load(Ordering::Relaxed), 0);
        }

        let metadata = fs::metadata(path(dir.path(), SessionFile::V4)).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, WORDS as u64 * 8));
    }

    #[test]
    fn a_file_of_another_size_is_emptied_and_one_that_others_could_read_restricted() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), SessionFile::V6);
        for content in [vec![1; 10], vec![1; 9 * WORDS]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let OpenedFile { words, was_emptied } =
                open(dir.path(), SessionFile::V6, WORDS).unwrap();
            assert!(was_emptied);
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, WORDS as u64 * 8));
        }
    }

    #[test]
    fn links_directories_and_impossible_sizes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), SessionFile::V4);
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, &path).unwrap();
        let refused = |words| {
            let error = open(dir.path(), SessionFile::V4, words).unwrap_err();
            assert!(matches!(error, Error::SessionFile { .. }), "{error}");
            assert!(error.to_string().contains("sessions4"), "{error}");
        };
        refused(WORDS);
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(WORDS);
        fs::remove_dir(&path).unwrap();
        refused(0);
        refused(usize::MAX);
    }
}

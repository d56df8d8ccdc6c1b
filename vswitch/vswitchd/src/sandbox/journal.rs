//! What the journal's thread calls besides.
//!
//! Enters: nothing. Leaves: calls on files of the state directory.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_fallocate: "room is reserved for lines that free a lease",
    SYS_fchmod: "a file is the daemon's alone",
    SYS_fdatasync: "lines are on disk",
    SYS_fsync: "files and names are on disk",
    SYS_ftruncate: "a line that could not be written whole is cut off",
    #[cfg(target_arch = "x86_64")]
    SYS_link: "a damaged journal keeps a second name",
    SYS_linkat: "a damaged journal keeps a second name",
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir: "the state directory, where somebody has removed it",
    SYS_mkdirat: "the state directory, where there is no mkdir",
    SYS_newfstatat: "whether a name is a file",
    SYS_pread64: "a journal with a bad block is read around it",
    #[cfg(target_arch = "x86_64")]
    SYS_rename: "a fresh journal takes the place of the former one",
    #[cfg(not(target_arch = "x86_64"))]
    SYS_renameat: "a fresh journal takes the place of the former one",
    SYS_renameat2: "likewise, by a C library that has no other rename",
    #[cfg(target_arch = "x86_64")]
    SYS_unlink: "the reserve, and a fresh journal that is of no use",
    SYS_unlinkat: "the same, where there is no unlink",
    SYS_writev: "several lines at once",
};

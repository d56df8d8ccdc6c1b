//! What a thread calls whatever it does.
//!
//! Enters: nothing. Leaves: calls of the C library, of Rust's, of the log, and of a panic with its backtrace.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_brk: "malloc gets memory",
    SYS_clock_gettime: "the clock, where the vDSO does not tell it",
    SYS_clock_nanosleep: "sleeps between two attempts",
    SYS_close: "descriptors end with what holds them",
    SYS_exit: "the thread ends",
    SYS_exit_group: "the process ends: a stop, or a panic that ends it",
    SYS_fcntl: "a build for tests asks whether a descriptor that it closes is open; others make one non-blocking",
    SYS_fstat: "a backtrace asks how long the program is",
    SYS_futex: "locks and channels between threads",
    SYS_getcwd: "a backtrace shortens the names of files",
    SYS_getpid: "abort names its process",
    SYS_getrandom: "seeds of hash tables",
    SYS_gettid: "abort names its thread",
    #[cfg(feature = "failpoints")]
    SYS_kill: "a fault of a test ends the process",
    SYS_lseek: "Rust asks how much is left of a file that it reads whole",
    SYS_madvise: "malloc gives memory back, and so does the stack of a thread that ends",
    SYS_mmap: "malloc gets memory; a backtrace reads the program",
    SYS_mprotect: "malloc uses more of what it has reserved for a thread",
    SYS_mremap: "malloc enlarges a large block",
    SYS_munmap: "malloc gives a large block back",
    SYS_openat: "a backtrace opens the program and its memory map; malloc counts cores",
    SYS_read: "bells, packets, and files of the kernel",
    #[cfg(target_arch = "x86_64")]
    SYS_readlink: "a backtrace asks which program this is",
    #[cfg(not(target_arch = "x86_64"))]
    SYS_readlinkat: "a backtrace asks which program this is",
    SYS_restart_syscall: "the kernel goes on with a sleep that a signal interrupted",
    SYS_rt_sigaction: "abort gives SIGABRT its default back",
    SYS_rt_sigprocmask: "abort and the start of a thread hold signals back",
    SYS_rt_sigreturn: "returns from the handler of a signal, which any thread may run",
    SYS_sched_getaffinity: "malloc counts cores",
    SYS_sched_yield: "gives way to others of its core",
    SYS_sigaltstack: "the end of a thread removes the stack of its signal handlers",
    SYS_statx: "Rust asks how long a file is that it reads whole",
    SYS_tgkill: "abort, after a panic within a panic",
    SYS_write: "lines of the log, bells, packets",
};

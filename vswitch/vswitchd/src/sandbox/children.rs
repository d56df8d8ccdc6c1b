//! What the program `nft` calls, and the thread that runs it: a filter survives execve(2).
//!
//! Enters: nothing. Leaves: calls of the dynamic linker, of nft 1.0 with its libraries, of glibc and musl, and of the
//! start, the wait and the end of a child. A newer nft that needs another one is ended by the kernel: then the
//! masquerading rules cannot be set, and the message names the signal.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    #[cfg(target_arch = "x86_64")]
    SYS_access: "the dynamic linker looks for its settings",
    #[cfg(target_arch = "x86_64")]
    SYS_arch_prctl: "the C library sets up thread-local memory",
    SYS_bind: "nft's socket of netlink",
    SYS_clone: "a child, where there is no clone3",
    SYS_clone3: "a child",
    #[cfg(target_arch = "x86_64")]
    SYS_dup2: "pipes become a child's standard input and output",
    SYS_dup3: "pipes become a child's standard input and output, where there is no dup2",
    SYS_execve: "nft is executed",
    SYS_faccessat: "the dynamic linker looks for its settings",
    SYS_getdents64: "directories of files that nft may include",
    SYS_getegid: "the C library asks whether the program has more rights than its user",
    SYS_geteuid: "the C library asks whether the program has more rights than its user",
    SYS_getgid: "the C library asks whether the program has more rights than its user",
    SYS_getppid: "a child asks for the process that started it",
    SYS_getsockname: "nft's number in netlink",
    SYS_getsockopt: "how much nft's socket of netlink takes",
    SYS_getuid: "the C library asks whether the program has more rights than its user",
    SYS_ioctl: "the C library asks whether nft prints to a terminal",
    SYS_kill: "a child that hangs is ended, with those that it started",
    SYS_newfstatat: "libraries, and files that name protocols",
    SYS_pidfd_open: "a child's end is waited for beside its output",
    SYS_pipe2: "input and output of a child",
    #[cfg(target_arch = "x86_64")]
    SYS_poll: "output of a child",
    SYS_ppoll: "output of a child, where there is no poll",
    SYS_prctl: "the C library names memory",
    SYS_pread64: "the dynamic linker reads libraries",
    SYS_prlimit64: "how many descriptors and how much stack there may be",
    SYS_pselect6: "nft waits for netlink",
    SYS_readv: "musl reads files by it",
    SYS_recvfrom: "netlink's answers",
    SYS_recvmsg: "netlink's answers to nft",
    SYS_rseq: "the C library's start",
    #[cfg(target_arch = "x86_64")]
    SYS_select: "nft waits for netlink, by an older C library",
    SYS_sendmsg: "nft's changes, all of them at once",
    SYS_sendto: "nft's questions to netlink",
    SYS_set_robust_list: "the C library's start",
    SYS_set_tid_address: "the C library's start",
    SYS_setpgid: "a child can be ended with those that it starts",
    SYS_setsockopt: "how much nft's socket of netlink takes",
    SYS_socket: "nft's socket of netlink; of few families alone",
    SYS_socketpair: "a child tells why it could not be executed",
    SYS_sysinfo: "the C library asks how much memory there is",
    SYS_uname: "the C library asks for the kernel's version",
    #[cfg(target_arch = "x86_64")]
    SYS_vfork: "a child, by an older C library",
    SYS_wait4: "how a child has ended",
    SYS_waitid: "how a child has ended",
    SYS_writev: "nft's output, by musl",
};

//! What the control thread calls besides.
//!
//! Enters: nothing. Leaves: calls of requests, of reloads and of a stop; and those by which an uplink that was gone
//! is opened again, on threads that inherit the filter.

use super::calls::{Call, calls};

pub(super) const CALLS: &[Call] = calls! {
    SYS_accept4: "a client comes to the control socket",
    #[cfg(target_arch = "x86_64")]
    SYS_access: "libbpf looks for files of the kernel when an uplink is opened",
    SYS_bind: "sockets of netlink, of a queue, of packets",
    SYS_bpf: "the XDP program of an uplink, its map, and what is told to it",
    #[cfg(target_arch = "x86_64")]
    SYS_chmod: "a socket or file is the daemon's alone",
    SYS_clone: "threads that open queues, where there is no clone3",
    SYS_clone3: "threads that open an uplink's queues side by side",
    SYS_connect: "the service manager's socket, and netlink's",
    SYS_dup: "a pod's port is given to the service manager",
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_create1: "the readiness queue of a worker's share",
    SYS_epoll_ctl: "clients come and go",
    SYS_epoll_pwait: "waits for whatever comes next, where there is no epoll_wait",
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait: "waits for whatever comes next",
    SYS_eventfd2: "bells of what is started again",
    SYS_faccessat: "libbpf looks for files of the kernel, where there is no access",
    SYS_fchmod: "a file is the daemon's alone",
    SYS_fdatasync: "a file is on disk",
    SYS_flock: "the plugin and the daemon take turns at DELs that wait",
    SYS_fsync: "a file is on disk",
    SYS_ftruncate: "a line of the journal that could not be written whole is cut off",
    SYS_getdents64: "directories: DELs that wait, queues of an interface",
    SYS_geteuid: "who may be a client",
    SYS_getsockname: "netlink's number of a socket",
    SYS_getsockopt: "who a client is, what a queue has counted",
    SYS_inotify_add_watch: "directories of pods' namespaces are watched",
    SYS_inotify_rm_watch: "and no more, once no pod is there",
    SYS_ioctl: "TAPs, and queues and settings of the NIC",
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir: "a directory that somebody has removed",
    SYS_mkdirat: "a directory that somebody has removed, where there is no mkdir",
    SYS_newfstatat: "whether a pod's namespace is still at its path",
    SYS_pidfd_open: "tells when a process ends whose namespace a pod has",
    #[cfg(target_arch = "x86_64")]
    SYS_poll: "a socket, for a bounded time",
    SYS_ppoll: "a socket, for a bounded time, where there is no poll",
    SYS_prctl: "names of threads that open queues, and the memory of malloc for them",
    SYS_pread64: "parts of files",
    SYS_prlimit64: "how many descriptors it may have, and how much stack a thread gets",
    SYS_pwrite64: "a session file's header",
    SYS_recvfrom: "answers of netlink, requests of clients",
    SYS_recvmsg: "requests with pods' ports, and the kernel's announcements",
    #[cfg(target_arch = "x86_64")]
    SYS_rename: "a file takes the place of another",
    SYS_renameat2: "a file takes the place of another, where there is no rename",
    SYS_rseq: "the start of a thread",
    SYS_sched_setaffinity: "a thread that is started again leaves the workers their cores",
    SYS_sendmsg: "descriptors to the service manager, answers to clients",
    SYS_sendto: "netlink, clients, the service manager",
    SYS_set_robust_list: "the start of a thread",
    SYS_setsockopt: "sockets of netlink and of queues",
    SYS_shutdown: "a client is sent away",
    SYS_socket: "netlink, ioctls of interfaces, queues; of these families alone",
    SYS_socketpair: "bells of signals",
    SYS_statfs: "whether a path is a namespace still",
    SYS_uname: "libbpf asks for the kernel's version",
    #[cfg(target_arch = "x86_64")]
    SYS_unlink: "sockets and files that are used up",
    SYS_unlinkat: "sockets and files that are used up, where there is no unlink",
    SYS_writev: "an answer in pieces",
};

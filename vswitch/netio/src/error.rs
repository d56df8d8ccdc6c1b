//! What can go wrong with the kernel, one sentence each; the system's own words are the source.

use std::io;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A TAP could not be made or set up, or no interface can have the name.
    #[error(transparent)]
    Tap(#[from] tap::Error),

    /// No interface of that name or index is in this namespace.
    #[error("there is no interface {name} in this network namespace")]
    NoInterface {
        /// Name or index as given.
        name: String,
    },

    /// A file descriptor that should become a port is none.
    #[error("the file descriptor cannot be a port: {reason}")]
    NotAPort {
        /// What it is, or what it lacks.
        reason: String,
    },

    /// An operation on a port failed while it was set up.
    #[error("cannot {action} on the port")]
    PortSetup {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// What the XDP program should take cannot be put in a program.
    #[error("the XDP program cannot be made: {reason}")]
    PinholeFilter {
        /// Which part, and what to change.
        reason: String,
    },

    /// A call of bpf(2) failed.
    #[error("cannot {action}; it needs CAP_BPF and CAP_NET_ADMIN{detail}")]
    Bpf {
        /// The operation that failed.
        action: &'static str,
        /// The verifier's log, or nothing.
        detail: String,
        /// The kernel's error.
        source: io::Error,
    },

    /// Another XDP program has the interface.
    #[error(
        "interface {ifindex} already has an XDP program: another vswitchd's, or another program's; \
         `bpftool net` shows it, and stopping its owner (or `ip link set dev … xdp off`) frees the \
         interface"
    )]
    XdpBusy {
        /// Index of the interface.
        ifindex: u32,
    },

    /// Neither native nor generic XDP can be attached.
    #[error("cannot attach an XDP program to interface {ifindex}; native mode: {native}")]
    XdpAttach {
        /// Index of the interface.
        ifindex: u32,
        /// Why native mode failed, or that it was not tried.
        native: String,
        /// Why generic mode failed.
        source: io::Error,
    },

    /// A program cannot be attached to tc.
    #[error(
        "cannot attach a program to tc of interface {ifindex}; it needs CAP_NET_ADMIN, CAP_BPF and a kernel with CONFIG_NET_XGRESS"
    )]
    TcAttach {
        /// Index of the interface.
        ifindex: u32,
        /// The kernel's error.
        source: io::Error,
    },

    /// A classifier of tc cannot be attached.
    #[error(
        "cannot attach a classifier to tc of interface {ifindex}; it needs CAP_NET_ADMIN, CAP_BPF and a kernel with CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS"
    )]
    TcClassifier {
        /// Index of the interface.
        ifindex: u32,
        /// The kernel's error.
        source: io::Error,
    },

    /// An AF_XDP socket's sizes are impossible.
    #[error("the AF_XDP socket cannot be made: {reason}")]
    XskConfig {
        /// Which value, and what it must be.
        reason: String,
    },

    /// The memory of an AF_XDP socket could not be registered.
    #[error(
        "cannot register {mib} MiB of packet memory for {ifname} queue {queue}; it needs CAP_IPC_LOCK or a larger RLIMIT_MEMLOCK"
    )]
    XskMemory {
        /// The interface.
        ifname: String,
        /// The queue.
        queue: u32,
        /// Size of the memory in MiB.
        mib: usize,
        /// The error of xsk-rs.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The queue belongs to another program.
    #[error(
        "queue {queue} of {ifname} is in use by another AF_XDP socket; stop the program that holds it"
    )]
    XskBusy {
        /// The interface.
        ifname: String,
        /// The queue.
        queue: u32,
    },

    /// An AF_XDP socket could not be bound.
    #[error("cannot bind an AF_XDP socket to queue {queue} of {ifname}")]
    XskBind {
        /// The interface.
        ifname: String,
        /// The queue.
        queue: u32,
        /// The kernel's error.
        source: io::Error,
    },

    /// An operation on an AF_XDP socket failed.
    #[error("cannot {action} on the AF_XDP socket")]
    Xsk {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// The file of a session table cannot be used.
    #[error("cannot {action} the session table's file {}", path.display())]
    SessionFile {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The kernel's error, or what the file is.
        source: io::Error,
    },

    /// A packet socket failed.
    #[error("cannot {action}; it needs CAP_NET_RAW, and an interface that is up")]
    PacketSocket {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// The TAP of the uplink could not be set up.
    #[error("cannot {action} the uplink's TAP; it needs CAP_NET_ADMIN")]
    UplinkTap {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// An ethtool request failed.
    #[error("cannot {action} of {ifname}")]
    Ethtool {
        /// The operation that failed.
        action: &'static str,
        /// The interface.
        ifname: String,
        /// The kernel's error.
        source: io::Error,
    },
}

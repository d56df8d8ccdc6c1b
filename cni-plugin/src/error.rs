//! Every way in which a command fails, and the one table that gives it a CNI code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use api::{ClientError, ErrorKind, ErrorReply, QueueError, ServiceProblem, ServiceProblemKind};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Specification version that is not supported, or that lacks the command.
    #[error("{0}")]
    Version(String),
    /// A field that cannot be honoured.
    #[error("{key} is not supported, and was given as {value}")]
    Unsupported {
        /// The field.
        key: String,
        /// Value of the field, as JSON.
        value: String,
    },
    /// Environment that is missing or malformed.
    #[error("{0}")]
    Env(String),
    /// Reading or writing on behalf of the runtime.
    #[error("cannot {doing}")]
    Io {
        /// The operation, in words.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Not the JSON that it should be.
    #[error("cannot decode {what}")]
    Decode {
        /// The input, in words.
        what: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A configuration that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The pod's network namespace is unusable.
    #[error("network namespace {path:?} {why}")]
    Netns {
        /// CNI_NETNS.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another ADD works in the pod's network namespace.
    #[error(
        "another ADD is at work in network namespace {path:?} and does not end; try again later"
    )]
    Busy {
        /// CNI_NETNS.
        path: PathBuf,
    },
    /// The daemon has not seen the request.
    #[error(transparent)]
    Unreachable(ClientError),
    /// The daemon may or may not have done as asked.
    #[error(transparent)]
    NoAnswer(ClientError),
    /// The daemon refused.
    #[error("vswitchd cannot {doing}: {reply}")]
    Daemon {
        /// The operation, in words.
        doing: &'static str,
        /// The daemon's answer.
        reply: ErrorReply,
    },
    /// STATUS: the daemon does not answer, or refuses to.
    #[error("{}", not_well(*.pods_suffer))]
    NotAvailable {
        /// Pods that are there suffer as well: the daemon that should forward for them is away.
        pods_suffer: bool,
        /// The cause.
        source: Box<Error>,
    },
    /// STATUS: the daemon reports what keeps it from serving pods.
    #[error("{}", not_well(pods_suffer(.0)))]
    NotWell(Vec<ServiceProblem>),
    /// The daemon is away, and what it should be told cannot be left for it on disk.
    #[error("{}; nor can that wait on disk for a daemon", .away.sentence())]
    NotQueued {
        /// What became of the request.
        away: Box<Error>,
        /// The cause.
        source: QueueError,
    },
    /// A system call hung, on which no deadline is set.
    #[error(
        "{command} did not end within {bound:?}: something of the node hangs, such as the file system of a path that it was given"
    )]
    Hung {
        /// The command.
        command: &'static str,
        /// The bound.
        bound: Duration,
    },
    /// The kernel refused.
    #[error("cannot {doing}")]
    Kernel {
        /// The operation, in words, with the object's name.
        doing: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The name is taken in the pod's namespace.
    #[error("interface {ifname} already exists in {netns:?} and was left as it is")]
    Exists {
        /// CNI_IFNAME.
        ifname: String,
        /// CNI_NETNS.
        netns: PathBuf,
    },
    /// The delegated IPAM plugin failed, with its own code.
    #[error("{msg}")]
    Delegate {
        /// Code of the plugin's error.
        code: u32,
        /// Message of the plugin, with its name before it.
        msg: String,
        /// Details of the plugin's error.
        details: String,
    },
    /// The delegated IPAM plugin gave not even a reason.
    #[error("IPAM plugin {plugin} {why}")]
    DelegateBroken {
        /// `ipam.type`.
        plugin: String,
        /// What the plugin did.
        why: String,
    },
    /// CHECK: something is not as ADD left it.
    #[error("{0}")]
    Altered(String),
    /// Several, each of which was met while the others went on.
    #[error("{}", .0.iter().map(Error::sentence).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

impl From<failpoint::Fault> for Error {
    fn from(fault: failpoint::Fault) -> Self {
        Self::Io { doing: "go on", source: fault.into() }
    }
}

impl Error {
    /// The code of the CNI error: below 100 the specification's, from 100 on this plugin's.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Unsupported { .. } => 2,
            Self::Env(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode { .. } => 6,
            Self::Invalid(_) => 7,
            Self::Netns { .. } => 8,
            Self::Busy { .. }
            | Self::Unreachable(_)
            | Self::NoAnswer(_)
            | Self::NotQueued { .. }
            | Self::Hung { .. } => 11,
            Self::Daemon { reply, .. } => match reply.kind {
                ErrorKind::Unknown => 3,
                ErrorKind::Invalid => 7,
                ErrorKind::Exhausted | ErrorKind::NotReady => 11,
                ErrorKind::Conflict => 101,
                ErrorKind::Internal => 102,
            },
            Self::NotAvailable { pods_suffer, .. } => status_code(*pods_suffer),
            Self::NotWell(problems) => status_code(pods_suffer(problems)),
            Self::Kernel { .. } => 100,
            Self::Exists { .. } => 103,
            Self::Delegate { code, .. } => *code,
            Self::DelegateBroken { .. } => 104,
            Self::Altered(_) => 105,
            // Waiting helps only if it helps all.
            Self::Several(errors) => errors.iter().map(Self::code).max().unwrap_or(102),
        }
    }

    /// What caused it, from the nearest cause to the farthest; empty if the message is complete.
    #[must_use]
    pub fn details(&self) -> String {
        match self {
            Self::Delegate { details, .. } => return details.clone(),
            Self::NotWell(problems) => {
                let reasons: Vec<_> = problems.iter().map(|one| one.reason.as_str()).collect();
                return reasons.join("; ");
            }
            _ => {}
        }
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes.join(": ")
    }

    /// Message and details in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let details = self.details();
        if details.is_empty() { self.to_string() } else { format!("{self}: {details}") }
    }

    /// One error for all of `errors`.
    ///
    /// # Errors
    /// If there is at least one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    pub(crate) fn kernel<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        |source| Self::Kernel { doing, source: source.into() }
    }
}

/// Whether one of the problems touches pods that are there.
fn pods_suffer(problems: &[ServiceProblem]) -> bool {
    problems.iter().any(|problem| problem.kind == ServiceProblemKind::PodsSuffer)
}

/// The specification's codes of STATUS: 50, "the plugin is not available", and 51, "the plugin is not
/// available, and existing containers in the network may have limited connectivity".
fn status_code(pods_suffer: bool) -> u32 {
    if pods_suffer { 51 } else { 50 }
}

fn not_well(pods_suffer: bool) -> &'static str {
    if pods_suffer {
        "pods may have no network now, or a part of it"
    } else {
        "no pod can be plugged in now"
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use api::{ClientError, ErrorKind, ErrorReply};

    use super::Error;

    #[test]
    fn the_daemons_errors_have_cni_codes() {
        let table = [
            (ErrorKind::Invalid, 7),
            (ErrorKind::Conflict, 101),
            (ErrorKind::Unknown, 3),
            (ErrorKind::Exhausted, 11),
            (ErrorKind::NotReady, 11),
            (ErrorKind::Internal, 102),
        ];
        for (kind, code) in table {
            let reply = ErrorReply { kind, message: "no".into() };
            assert_eq!(Error::Daemon { doing: "try", reply }.code(), code, "{kind:?}");
        }
    }

    #[test]
    fn details_are_the_causes_and_are_not_repeated_in_the_message() {
        let refused = io::Error::from_raw_os_error(111);
        let unreachable = Error::Unreachable(ClientError::of_connect("/run/s".as_ref(), refused));
        let error = Error::NotAvailable { pods_suffer: false, source: Box::new(unreachable) };
        assert_eq!(error.to_string(), "no pod can be plugged in now");
        assert_eq!(
            error.details(),
            "no vswitchd listens at /run/s; start it (systemctl start vswitchd), or name the socket of the one that runs: Connection refused (os error 111)"
        );
    }

    #[test]
    fn several_errors_name_each_and_none_is_no_error() {
        assert!(Error::all(Vec::new()).is_ok());
        let error = Error::all(vec![Error::Invalid("one".into()), Error::Altered("two".into())])
            .expect_err("two errors");
        assert_eq!((error.to_string().as_str(), error.code()), ("one; two", 105));
    }
}

//! What can go wrong with rtnetlink, one sentence each; the system's own words are the source.

use std::io;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error("cannot {action} the netlink socket")]
    Socket {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// The kernel refused a request.
    #[error("the kernel refused to {action}{}", advice(.source))]
    Refused {
        /// The request, and its object.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },

    /// The kernel answered in no time that one waits for.
    #[error(
        "the kernel did not answer the request to {action} within {seconds} s; see what holds it up: `ip link` may hang as well"
    )]
    NoAnswer {
        /// The request, and its object.
        action: String,
        /// How long it was waited for.
        seconds: u64,
    },

    /// The kernel's answer could not be read.
    #[error("the kernel's answer to a netlink request is malformed: {reason}")]
    Malformed {
        /// What is wrong with the answer.
        reason: String,
    },
}

/// What to do about a refusal, where its number shows it.
fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => "; it needs CAP_NET_ADMIN in this network namespace",
        Some(libc::ENETDOWN) => "; switch the interface on first",
        // net/ipv6/addrconf.c: nothing but `disable_ipv6` is answered so.
        Some(libc::EACCES) => "; IPv6 is switched off there (sysctl disable_ipv6)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_refusal_says_what_to_do_where_that_is_known() {
        let refused = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            Error::Refused { action: "do it".into(), source }.to_string()
        };
        assert_eq!(
            refused(libc::EPERM),
            "the kernel refused to do it; it needs CAP_NET_ADMIN in this network namespace"
        );
        assert_eq!(refused(libc::EEXIST), "the kernel refused to do it");
    }
}

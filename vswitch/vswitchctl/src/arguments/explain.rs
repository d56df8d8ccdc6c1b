//! The arguments of `explain`, and the request that they mean.

use api::Request;
use clap::{Args, ValueEnum};

#[derive(Args)]
pub(crate) struct Explain {
    /// What opens it: a pod (`namespace/name`, as `show ports` has it) or an address.
    #[arg(value_name = "SRC")]
    source: String,
    /// Where it leads: a pod, a service (`namespace/name`, with `:port-name` as `show services` has
    /// it, with `.svc` where a pod has the same name) or an address.
    #[arg(value_name = "DST[:PORT]")]
    destination: String,
    /// The service's, or else TCP, if absent.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Protocol {
    /// By its SYN.
    Tcp,
    /// By a datagram.
    Udp,
    /// By its INIT.
    Sctp,
    /// A ping.
    Icmp,
}

impl Explain {
    pub(super) fn request(&self) -> Request {
        let protocol = self.protocol.map(|protocol| match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
            Protocol::Icmp => "icmp",
        });
        Request::Explain(api::Explain {
            source: self.source.clone(),
            destination: self.destination.clone(),
            protocol: protocol.map(str::to_owned),
        })
    }
}

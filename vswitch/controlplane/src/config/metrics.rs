//! Where counters are read from: a unix socket, or an address with a port.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Begins the path of a unix socket.
const UNIX: &str = "unix:";

/// Where counters are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// A unix socket with this path, which is absolute.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(()),
            None => {
                let address: SocketAddr = text.parse().map_err(|_| ())?;
                if address.port() == 0 { Err(()) } else { Ok(Self::Tcp(address)) }
            }
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MetricsAddress;

    #[test]
    fn a_path_or_an_address_with_a_port() {
        for text in ["unix:/run/vswitch/metrics.sock", "127.0.0.1:9750", "[::1]:9750"] {
            let address: MetricsAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        for text in ["unix:metrics.sock", "unix:", "9750", "127.0.0.1", "127.0.0.1:0", "node:9750"]
        {
            assert_eq!(text.parse::<MetricsAddress>(), Err(()), "{text}");
        }
    }
}

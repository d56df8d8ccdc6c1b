//! Services of a node in text.
//!
//! ```text
//! service 198.18.255.1 tcp 80 [affinity 60 of 7] [from 198.18.0.0/16] to 198.18.1.3:8080 198.18.2.7:8080
//!    [elsewhere]                                a port of a virtual address, and its backends; `!`
//!                                               behind one that is serving, `!!` one that is not;
//!                                               `elsewhere`: without backends flows are dropped
//! service 198.18.255.1 none                     a virtual address without ports
//! no-service 198.18.255.1 tcp 80                the port goes, and with an address's last port the address
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::session::Endpoint;
use dataplane::tables::{
    Adjacency, Backend, BackendState, Backends, ClientAffinity, ConnectionCount, Service,
    VirtualPort, WithoutBackend,
};
use dataplane::wire::Protocol;
use ipnet::IpNet;

use super::{Node, Words};

impl Node {
    pub(super) fn service(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let address: IpAddr = words.parse("virtual address")?;
        self.to(address.into(), Adjacency::Service);
        let protocol = match words.next("protocol")? {
            "none" => {
                self.generation += 1;
                return Ok(());
            }
            name => protocol(name)?,
        };
        let port = words.parse("port")?;
        let number = words.value("of")?.unwrap_or(0);
        let affinity =
            words.value("affinity")?.map(|timeout_s| ClientAffinity { service: number, timeout_s });
        let sources = words.value::<IpNet>("from")?.map(|net| Arc::from([net]));
        let without_backend = match words.flag("elsewhere") {
            true => WithoutBackend::Drop,
            false => WithoutBackend::Refuse,
        };
        words.expect("to")?;
        let backends: Vec<_> = words.all::<String>()?.iter().map(|one| backend(one)).collect();
        let backends = backends.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.generation += 1;
        let service = Service {
            generation: self.generation,
            backends: Arc::new(Backends::new(backends)),
            without_backend,
            affinity,
            sources,
            connections: ConnectionCount::default(),
        };
        let services = Arc::make_mut(&mut self.tables.services);
        let port = VirtualPort { address, protocol, port };
        services.insert(port, service);
        self.virtual_ports.retain(|known| *known != port);
        self.virtual_ports.push(port);
        Ok(())
    }

    pub(super) fn no_service(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let address: IpAddr = words.parse("virtual address")?;
        let protocol = protocol(words.next("protocol")?)?;
        let gone = VirtualPort { address, protocol, port: words.parse("port")? };
        let services = Arc::make_mut(&mut self.tables.services);
        if services.get(&gone).is_none() {
            return Err(format!("no service `{address} {protocol:?} {}`", gone.port));
        }
        services.remove(&gone);
        self.virtual_ports.retain(|port| *port != gone);
        if self.virtual_ports.iter().all(|port| port.address != address) {
            self.no_route(address.into());
        }
        Ok(())
    }
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "sctp" => Ok(Protocol::SCTP),
        other => Err(format!("unknown protocol `{other}`")),
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    let (endpoint, state) = match (text.strip_suffix("!!"), text.strip_suffix('!')) {
        (Some(endpoint), _) => (endpoint, BackendState::NotServing),
        (_, Some(endpoint)) => (endpoint, BackendState::Serving),
        _ => (text, BackendState::Usable),
    };
    let at: SocketAddr = endpoint.parse().map_err(|error| format!("`{text}`: {error}"))?;
    Ok(Backend { endpoint: Endpoint { address: at.ip(), port: at.port() }, state })
}

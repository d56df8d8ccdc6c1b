//! Services as lists: what becomes of a packet, found by going through all of them.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane::DropReason;
use dataplane::session::Class;
use dataplane::tables::BackendState;

use super::world::{ENDS, Left, NODE_ITSELF, Sent, Transport, WORLD};

/// Two virtual addresses, and what is served there; the same backends behind both.
pub(crate) const VIRTUAL: [(Ipv4Addr, Transport, u16); 5] = [
    (Ipv4Addr::new(198, 18, 255, 1), Transport::Tcp, 80),
    (Ipv4Addr::new(198, 18, 255, 1), Transport::Udp, 53),
    (Ipv4Addr::new(198, 18, 255, 1), Transport::Sctp, 80),
    (Ipv4Addr::new(198, 18, 255, 2), Transport::Tcp, 80),
    (Ipv4Addr::new(198, 18, 255, 2), Transport::Udp, 53),
];

/// Backends by their number among the ends.
pub(crate) type Served = Vec<(usize, BackendState)>;

/// The port at which all backends listen.
pub(crate) const BACKEND_PORT: u16 = 8080;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) transport: Transport,
    /// As the client sends.
    pub(crate) client: SocketAddrV4,
    pub(crate) service: SocketAddrV4,
    /// As the backend receives.
    pub(crate) source: SocketAddrV4,
    pub(crate) backend: SocketAddrV4,
    /// That of its service when it was last looked at.
    version: u32,
    /// What client and backend have sent: an ACK of TCP, anything of others.
    sent: [bool; 2],
    class: Class,
}

#[derive(Default)]
pub(crate) struct Model {
    services: [Option<(u32, Served)>; VIRTUAL.len()],
    versions: u32,
    pub(crate) sessions: Vec<Known>,
}

impl Known {
    fn see(&mut self, end: usize, flags: &str) {
        if self.transport == Transport::Tcp {
            if flags.contains('R') {
                if self.class != Class::Embryonic {
                    (self.sent, self.class) = ([false; 2], Class::Reset);
                }
                return;
            }
            if self.class == Class::Reset && flags.contains('S') {
                // Of a connection to come.
                return;
            }
            self.sent[end] |= flags.contains('A');
        } else {
            self.sent[end] = true;
        }
        if self.sent == [true; 2] {
            self.class = Class::Established;
        }
    }
}

impl Model {
    pub(crate) fn serve(&mut self, service: usize, served: Option<Served>) {
        self.versions += 1;
        let version = self.versions;
        self.services[service] = served.map(|served| (version, served));
    }

    pub(crate) fn is_served(&self, service: usize) -> bool {
        self.services[service].is_some()
    }

    fn service(&self, transport: Transport, at: SocketAddrV4) -> Option<&(u32, Served)> {
        let known = VIRTUAL.iter().position(|one| *one == (*at.ip(), transport, at.port()))?;
        self.services[known].as_ref()
    }

    fn is_virtual(&self, address: Ipv4Addr) -> bool {
        let mut known = VIRTUAL.iter().zip(&self.services);
        known.any(|((own, ..), served)| *own == address && served.is_some())
    }

    /// Whether what became of a packet may be; it is then known.
    pub(crate) fn check(&mut self, sent: &Sent, left: Left) -> Result<(), String> {
        let Sent { transport, from, to, .. } = *sent;
        let of = |is_it: &dyn Fn(&Known) -> bool| {
            self.sessions.iter().position(|known| known.transport == transport && is_it(known))
        };
        if let Some(at) = of(&|known| (known.client, known.service) == (from, to)) {
            self.of_client(at, sent, left)
        } else if let Some(at) = of(&|known| (known.backend, known.source) == (from, to)) {
            self.of_backend(at, sent, left)
        } else {
            self.without_session(sent, left)
        }
    }

    fn of_client(&mut self, at: usize, sent: &Sent, left: Left) -> Result<(), String> {
        let known = self.sessions[at];
        let opens = sent.transport == Transport::Tcp && sent.flags == "S";
        if opens && known.class == Class::Reset {
            self.sessions.remove(at);
            let outcome = self.without_session(sent, left);
            if left.is_err() && self.is_virtual(*sent.to.ip()) {
                // What does not begin does not take its place.
                self.sessions.push(known);
            }
            return outcome;
        }
        let service = self.service(known.transport, known.service);
        let is_datagram = sent.transport == Transport::Udp;
        let outlives = !is_datagram && known.class != Class::Embryonic && !opens;
        let is_its = |(end, _): &&(usize, BackendState)| ENDS[*end].address == *known.backend.ip();
        let goes_on = match service {
            Some((version, _)) if *version == known.version => true,
            Some((_, served)) => match served.iter().find(is_its) {
                Some((_, state)) => !is_datagram || *state != BackendState::NotServing,
                None => outlives,
            },
            None => outlives,
        };
        if !goes_on {
            self.sessions.remove(at);
            return self.without_session(sent, left);
        }
        let version = service.map_or(known.version, |(version, _)| *version);
        self.sessions[at].version = version;
        self.sessions[at].see(0, sent.flags);
        expect(left, Ok((known.source, known.backend)))
    }

    fn of_backend(&mut self, at: usize, sent: &Sent, left: Left) -> Result<(), String> {
        let known = self.sessions[at];
        if sent.transport == Transport::Tcp && sent.flags == "S" && known.class == Class::Reset {
            self.sessions.remove(at);
            return self.without_session(sent, left);
        }
        if sent.transport != Transport::Udp
            || self.service(known.transport, known.service).is_some()
        {
            self.sessions[at].see(1, sent.flags);
        }
        expect(left, Ok((known.service, known.client)))
    }

    fn without_session(&mut self, sent: &Sent, left: Left) -> Result<(), String> {
        let Sent { transport, from, to, flags } = *sent;
        let is_of_host = |address: Ipv4Addr| {
            [NODE_ITSELF, WORLD].iter().any(|end| ENDS[*end].address == address)
        };
        if !self.is_virtual(*to.ip()) {
            let is_pod = ENDS.iter().any(|end| end.address == *to.ip() && !is_of_host(end.address));
            return match is_of_host(*from.ip()) && !is_pod {
                true => expect(left, Err(DropReason::SamePort)),
                false => expect(left, Ok((from, to))),
            };
        }
        let served = self.service(transport, to).map_or(&[][..], |(_, served)| served);
        let usable = || served.iter().filter(|(_, state)| *state == BackendState::Usable);
        if usable().next().is_none() {
            return expect(left, Err(DropReason::ServiceRefused));
        }
        let node_to_world = *from.ip() == ENDS[NODE_ITSELF].address;
        if node_to_world && left == Err(DropReason::SamePort) {
            let any = usable().any(|(end, _)| *end == WORLD);
            return if any { Ok(()) } else { Err("no backend is in the world".into()) };
        }
        let (source, backend) = left.map_err(|reason| format!("dropped: {reason}"))?;
        let is_usable = |(end, _): &(usize, BackendState)| {
            backend == SocketAddrV4::new(ENDS[*end].address, BACKEND_PORT)
        };
        if !usable().any(is_usable) {
            return Err(format!("{backend} is no usable backend"));
        }
        let is_itself = backend.ip() == from.ip();
        let speaker = if is_itself { ENDS[NODE_ITSELF].address } else { *from.ip() };
        let is_taken = |source: SocketAddrV4| {
            let mut known = self.sessions.iter();
            known.any(|known| {
                (known.transport, known.source, known.backend) == (transport, source, backend)
            })
        };
        let own = SocketAddrV4::new(speaker, from.port());
        let is_right = match is_taken(own) {
            false => source == own,
            true => *source.ip() == speaker && source.port() >= 61_000 && !is_taken(source),
        };
        if !is_right {
            return Err(format!("{source} speaks for {from} to {backend}"));
        }
        let version = self.service(transport, to).map_or(0, |(version, _)| *version);
        let mut known = Known {
            transport,
            client: from,
            service: to,
            source,
            backend,
            version,
            sent: [false; 2],
            class: Class::Embryonic,
        };
        known.see(0, flags);
        self.sessions.push(known);
        Ok(())
    }
}

fn expect(left: Left, expected: Left) -> Result<(), String> {
    if left == expected { Ok(()) } else { Err(format!("{left:?} instead of {expected:?}")) }
}

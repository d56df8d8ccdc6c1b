//! Flows that the kernel's connection tracking knows, found and deleted by ctnetlink.
//!
//! Enters: which flows are looked at, and a judgement of each. Leaves: connection tracking without
//! those that are unwanted: the next packet of such a flow is translated anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

use super::nfnetlink::{HEADER_BYTES, attribute, put, put_nested};
use super::socket::{
    DATAGRAM_BYTES, Failure, PATIENCE, WHOLE_ANSWER, answer, be_patient, read as read_datagram,
    take_raw,
};
use crate::{Error, Result};

// include/uapi/linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
/// NFNL_SUBSYS_CTNETLINK, the upper byte of a message's type, with IPCTNL_MSG_CT_GET and
/// IPCTNL_MSG_CT_DELETE.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
// Bits of CTA_FILTER_ORIG_FLAGS: which fields of the tuple a flow is to have.
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// Flows that one call deletes at most: more than a node's clients have with one port.
const MOST: usize = 65_536;

/// Which flows are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowFilter {
    /// IPv4 rather than IPv6.
    pub is_v4: bool,
    /// Number of the transport protocol, as in an IP header.
    pub protocol: u8,
    /// Destination port of the first packet; any if absent.
    pub port: Option<u16>,
}

/// A flow, as the kernel tracks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackedFlow {
    /// Where its first packet was sent.
    pub destination: SocketAddr,
    /// Where the answers come from: the destination, or what that was translated to.
    pub answerer: SocketAddr,
}

/// A socket for ctnetlink, in the namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    /// A socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::Socket { action: "open", source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        be_patient(&socket, PATIENCE)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Deletes the flows that are unwanted among those of the filter, 65,536 at most; how many there
    /// were. One that ended meanwhile is as good as deleted.
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses, which takes CAP_NET_ADMIN.
    pub fn delete(
        &mut self,
        filter: FlowFilter,
        mut is_unwanted: impl FnMut(&TrackedFlow) -> bool,
    ) -> Result<usize> {
        let mut unwanted = Vec::new();
        let found = self.ask(GET, NLM_F_DUMP, &request(filter), |payload| {
            let Some((flow, key)) = read(payload, filter) else { return };
            if unwanted.len() < MOST && is_unwanted(&flow) {
                unwanted.push(key);
            }
        });
        found.map_err(|error| error.on("list tracked flows"))?;
        for key in &unwanted {
            match self.ask(DELETE, NLM_F_ACK, key, |_| ()) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                outcome => outcome.map_err(|error| error.on("delete a tracked flow"))?,
            }
        }
        Ok(unwanted.len())
    }

    /// Sends one request, from its `struct nfgenmsg` on; gives each message of the answer to `take`.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> std::result::Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(payload);
        let sent = self.socket.send_to(&message, &NetlinkAddr::new(0, 0), 0);
        sent.map_err(|source| Failure::Socket { action: "write to", source })?;
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        let until = Instant::now() + WHOLE_ANSWER;
        loop {
            read_datagram(&self.socket, &mut datagram, until)?;
            let is_last = answer(&datagram, self.sequence, |part| {
                take_raw(part, |_, _, payload| take(payload))
            })?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// `struct nfgenmsg`: family, version, resource.
fn begin(is_v4: bool) -> Vec<u8> {
    let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
    vec![family as u8, 0, 0, 0]
}

/// The request for flows of a filter. A kernel before 5.8 knows no CTA_FILTER, and lists all of the
/// family.
fn request(filter: FlowFilter) -> Vec<u8> {
    let mut proto = Vec::new();
    put(&mut proto, CTA_PROTO_NUM, &[filter.protocol]);
    let mut flags = FILTER_PROTO_NUM;
    if let Some(port) = filter.port {
        put(&mut proto, CTA_PROTO_DST_PORT, &port.to_be_bytes());
        flags |= FILTER_PROTO_DST_PORT;
    }
    let (mut tuple, mut wanted) = (Vec::new(), Vec::new());
    put_nested(&mut tuple, CTA_TUPLE_PROTO, &proto);
    put(&mut wanted, CTA_FILTER_ORIG_FLAGS, &flags.to_ne_bytes());
    put(&mut wanted, CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
    let mut request = begin(filter.is_v4);
    put_nested(&mut request, CTA_TUPLE_ORIG, &tuple);
    put_nested(&mut request, CTA_FILTER, &wanted);
    request
}

/// A flow of the filter out of the kernel's message, and the request's payload that deletes it and no
/// other.
pub(crate) fn read(payload: &[u8], filter: FlowFilter) -> Option<(TrackedFlow, Vec<u8>)> {
    let attributes = payload.get(HEADER_BYTES..)?;
    let original = attribute(attributes, CTA_TUPLE_ORIG)?;
    let (protocol, _, destination) = tuple(original)?;
    let (_, answerer, _) = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    let is_asked_for = protocol == filter.protocol
        && destination.is_ipv4() == filter.is_v4
        && filter.port.is_none_or(|port| port == destination.port());
    if !is_asked_for {
        return None;
    }
    let mut key = begin(filter.is_v4);
    put_nested(&mut key, CTA_TUPLE_ORIG, original);
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(value) = attribute(attributes, kind) {
            put(&mut key, kind, value);
        }
    }
    Some((TrackedFlow { destination, answerer }, key))
}

/// Protocol, source and destination of one direction.
fn tuple(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, proto) = (attribute(tuple, CTA_TUPLE_IP)?, attribute(tuple, CTA_TUPLE_PROTO)?);
    let address = |v4, v6| match attribute(ip, v4) {
        Some(bytes) => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        None => Some(IpAddr::V6(Ipv6Addr::from(*attribute(ip, v6)?.first_chunk::<16>()?))),
    };
    let port = |kind| Some(u16::from_be_bytes(*attribute(proto, kind)?.first_chunk::<2>()?));
    let source = (address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?);
    let destination = (address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?);
    let protocol = *attribute(proto, CTA_PROTO_NUM)?.first()?;
    Some((protocol, source.into(), destination.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: FlowFilter = FlowFilter { is_v4: true, protocol: 17, port: Some(53) };

    fn direction(source: (&[u8], u16), destination: (&[u8], u16)) -> Vec<u8> {
        let (mut ip, mut proto, mut tuple) = (Vec::new(), Vec::new(), Vec::new());
        put(&mut ip, CTA_IP_V4_SRC, source.0);
        put(&mut ip, CTA_IP_V4_DST, destination.0);
        put(&mut proto, CTA_PROTO_NUM, &[17]);
        put(&mut proto, CTA_PROTO_SRC_PORT, &source.1.to_be_bytes());
        put(&mut proto, CTA_PROTO_DST_PORT, &destination.1.to_be_bytes());
        put_nested(&mut tuple, CTA_TUPLE_IP, &ip);
        put_nested(&mut tuple, CTA_TUPLE_PROTO, &proto);
        tuple
    }

    fn message(port: u16) -> Vec<u8> {
        let client: (&[u8], u16) = (&[198, 51, 100, 9], 4711);
        let mut message = begin(true);
        put_nested(&mut message, CTA_TUPLE_ORIG, &direction(client, (&[198, 51, 100, 11], port)));
        put_nested(&mut message, CTA_TUPLE_REPLY, &direction((&[198, 18, 1, 2], 5353), client));
        put(&mut message, CTA_ID, &[1, 2, 3, 4]);
        message
    }

    #[test]
    fn a_flow_has_the_destination_of_its_first_packet_and_who_answers() {
        let (flow, key) = read(&message(53), FILTER).expect("of the filter");
        assert_eq!(flow.destination, "198.51.100.11:53".parse().expect("an address"));
        assert_eq!(flow.answerer, "198.18.1.2:5353".parse().expect("an address"));
        let attributes = &key[HEADER_BYTES..];
        assert_eq!(attribute(attributes, CTA_ID), Some(&[1, 2, 3, 4][..]));
        let whole = message(53);
        assert_eq!(
            attribute(attributes, CTA_TUPLE_ORIG),
            attribute(&whole[HEADER_BYTES..], CTA_TUPLE_ORIG)
        );
    }

    #[test]
    fn flows_that_were_not_asked_for_are_passed_over() {
        assert!(read(&message(54), FILTER).is_none());
        assert!(read(&message(53), FlowFilter { protocol: 6, ..FILTER }).is_none());
        assert!(read(&message(53), FlowFilter { is_v4: false, ..FILTER }).is_none());
        assert!(read(&message(54), FlowFilter { port: None, ..FILTER }).is_some());
    }

    #[test]
    fn what_is_cut_short_is_passed_over() {
        let whole = message(53);
        for len in 0..whole.len() {
            let _ = read(&whole[..len], FILTER);
        }
    }
}

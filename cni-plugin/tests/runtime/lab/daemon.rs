//! vswitchd, played: answers the control socket from a table, keeps what it was sent, and can be
//! made to refuse, to hang up, or to hang.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use api::{
    AddressRange, Adjustment, AttachmentId, Collect, Decoder, ErrorKind, ErrorReply, Mac, Mode,
    Reattachment, Reply, Request, Reserve, Reserved, Response, ServiceProblem, Status,
};
use ipnet::IpNet;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

pub(crate) const GATEWAY_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
pub(crate) const MTU: u32 = 1450;

/// What goes wrong at the request of the given name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    Refuse(&'static str, ErrorKind),
    /// It is older than port mappings.
    KnowsNoPortMappings,
    /// It is older than ranges of addresses.
    KnowsNoRanges,
    Close(&'static str),
    Hang(&'static str),
}

pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) requests: Vec<Request>,
    pub(crate) reserved: Vec<AttachmentId>,
    pub(crate) attached: Vec<Attached>,
    /// What GC asked for.
    pub(crate) collected: Vec<Collect>,
    /// Its answer to `Reattachments`.
    pub(crate) reattachments: Vec<Reattachment>,
    /// Its answer to `Adjustments`.
    pub(crate) adjustments: Vec<Adjustment>,
    /// What it reports to `Status`.
    pub(crate) problems: Vec<ServiceProblem>,
    fault: Option<Fault>,
    stopped: bool,
}

/// What came with an `Attach`.
pub(crate) struct Attached {
    pub(crate) id: AttachmentId,
    pub(crate) mac: Mac,
    pub(crate) tap: OwnedFd,
    /// Its other queues.
    pub(crate) more: Vec<OwnedFd>,
    /// The process by which the pod's namespace is named.
    pub(crate) process: OwnedFd,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        Self::in_directory(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn in_directory(dir: tempfile::TempDir) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                if state.lock().expect("no thread panicked").stopped {
                    return;
                }
                thread::spawn(move || serve(&stream.expect("accepted"), &state));
            }
        });
        Self { dir, state }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked")
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Names of the requests so far; forgets them.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.state().requests.drain(..).map(|request| name(&request)).collect()
    }

    /// Holds neither reservation nor descriptor.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.reserved.is_empty() && state.attached.is_empty()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut state = self.state();
        state.stopped = true;
        state.attached.clear();
        drop(state);
        let _ = UnixStream::connect(self.socket());
    }
}

fn name(request: &Request) -> String {
    let json = serde_json::to_value(request).expect("encodes");
    json["request"].as_str().expect("tagged").to_owned()
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>) {
    let mut decoder = Decoder::for_requests();
    let mut descriptors = Vec::new();
    loop {
        let Some(request) = decoder.next_request().expect("a request") else {
            let (bytes, with_first) = receive(stream);
            if bytes.is_empty() {
                return;
            }
            assert!(with_first.is_empty() || decoder.is_empty(), "descriptors come first");
            decoder.feed(&bytes);
            descriptors.extend(with_first);
            continue;
        };
        // Those of the port's queues, and that of the process by which the pod's namespace is named.
        let expected = match &request {
            Request::Attach(attach) => usize::from(attach.queues) + 1,
            _ => 0,
        };
        assert_eq!(descriptors.len(), expected, "descriptors come with Attach alone");
        let response = {
            let mut state = state.lock().expect("no thread panicked");
            let name = name(&request);
            state.requests.push(request.clone());
            match state.fault.unwrap_or(Fault::None) {
                Fault::Close(at) if at == name => return,
                Fault::Hang(at) if at == name => {
                    drop(state);
                    // Until the client hangs up.
                    _ = receive(stream);
                    return;
                }
                Fault::Refuse(at, kind) if at == name => {
                    Err(ErrorReply { kind, message: "the test says so".into() })
                }
                _ => answer(&mut state, request, std::mem::take(&mut descriptors)),
            }
        };
        let bytes = api::encode_response(&response).expect("encodes");
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn receive(stream: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(9))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let len = received.map_or(0, |received| received.bytes);
    bytes.truncate(len);
    let descriptors = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    (bytes, descriptors)
}

fn answer(state: &mut State, request: Request, descriptors: Vec<OwnedFd>) -> Response {
    match request {
        Request::Reserve(reserve) => {
            let mut reserved = reserved(&reserve);
            if state.fault == Some(Fault::KnowsNoPortMappings) {
                reserved.port_mappings.clear();
            }
            if state.fault != Some(Fault::KnowsNoRanges) {
                keep_to_ranges(&mut reserved, &reserve.ranges);
            }
            state.reserved.push(reserve.attachment);
            Ok(Reply::Reserved(reserved))
        }
        Request::Attach(attach) => {
            let mut descriptors = descriptors;
            let process = descriptors.pop().expect("they were counted");
            assert_eq!(descriptors.len(), usize::from(attach.queues));
            let mut queues = descriptors.into_iter();
            let tap = queues.next().expect("they were counted");
            state.reattachments.retain(|pod| pod.attachment != attach.attachment);
            state.attached.push(Attached {
                id: attach.attachment,
                mac: attach.mac,
                tap,
                more: queues.collect(),
                process,
            });
            Ok(Reply::Done)
        }
        Request::Detach(attachment) => {
            state.reserved.retain(|id| *id != attachment);
            state.attached.retain(|attached| attached.id != attachment);
            Ok(Reply::Done)
        }
        Request::Check(check) => {
            let refuse = |kind, message: &str| Err(ErrorReply { kind, message: message.into() });
            match state.attached.iter().find(|one| one.id == check.attachment) {
                None => refuse(ErrorKind::Unknown, "no such attachment"),
                Some(one) if one.mac != check.mac => {
                    refuse(ErrorKind::Conflict, "it was attached with another MAC")
                }
                Some(_) => Ok(Reply::Done),
            }
        }
        Request::Collect(collect) => {
            state.collected.push(collect);
            Ok(Reply::Done)
        }
        Request::Status => Ok(Reply::Status(Box::new(status(&state.problems)))),
        Request::Reattachments => Ok(Reply::Reattachments(state.reattachments.clone())),
        Request::InterfaceNotFound(pod) => {
            state.reattachments.retain(|missing| missing.attachment != pod);
            Ok(Reply::Done)
        }
        Request::Adjustments => Ok(Reply::Adjustments(state.adjustments.clone())),
        Request::Adjusted { attachment, .. } => {
            state.adjustments.retain(|adjustment| adjustment.attachment != attachment);
            Ok(Reply::Done)
        }
        other => Err(ErrorReply {
            kind: ErrorKind::Internal,
            message: format!("{} is not played", name(&other)),
        }),
    }
}

/// The first address of the first range of its family.
fn keep_to_ranges(reserved: &mut Reserved, ranges: &[AddressRange]) {
    for net in &mut reserved.addresses {
        if let Some(range) = ranges.iter().find(|range| range.is_of_family(net.addr())) {
            *net = IpNet::new(range.first, net.prefix_len()).expect("the same family");
        }
    }
}

/// Routed unless asked otherwise; the fourth byte of the address distinguishes interfaces.
fn reserved(reserve: &Reserve) -> Reserved {
    let mode = reserve.mode.clone().unwrap_or(Mode::Routed);
    let AttachmentId { container_id, ifname } = &reserve.attachment;
    let of_interface = if ifname == "eth0" { "" } else { ifname };
    let bytes = container_id.bytes().chain(of_interface.bytes());
    let host_part = bytes.fold(5u8, |sum, byte| sum.wrapping_add(byte)) | 2;
    let (addresses, gateways): (Vec<IpNet>, Vec<IpAddr>) = match &reserve.delegated {
        Some(delegated) => (delegated.addresses.clone(), delegated.gateways.clone()),
        None => (
            vec![
                format!("198.18.1.{host_part}/24").parse().expect("a prefix"),
                format!("fd00:18:1::{host_part:x}/64").parse().expect("a prefix"),
            ],
            ["198.18.1.1", "fd00:18:1::1"].map(|a| a.parse().expect("an address")).to_vec(),
        ),
    };
    let addresses = match mode {
        Mode::Routed => addresses.iter().map(|address| IpNet::from(address.addr())).collect(),
        Mode::Bridged { .. } => addresses,
    };
    let mac = reserve.mac.unwrap_or(Mac([0x02, 0, 0, 0, 1, host_part]));
    let (port_mappings, bandwidth) = (reserve.port_mappings.clone(), reserve.bandwidth);
    Reserved {
        addresses,
        gateways,
        gateway_mac: GATEWAY_MAC,
        mac,
        mtu: MTU,
        mode,
        port_mappings,
        bandwidth,
        queues: reserve.queues,
    }
}

fn status(problems: &[ServiceProblem]) -> Status {
    Status {
        version: "0".into(),
        node: "a".into(),
        uptime_seconds: 1,
        epoch: 1,
        pod_prefixes: ["198.18.1.0/24", "fd00:18:1::/64"].map(|p| p.parse().expect("ok")).to_vec(),
        cluster_prefixes: Vec::new(),
        pod_mtu: MTU,
        pods: 0,
        peers: 0,
        sources: Vec::new(),
        uplink: None,
        workers: Vec::new(),
        host_interface: None,
        masquerade: None,
        kernel_routes: None,
        repairs: Vec::new(),
        publish_latency_us: None,
        choices: Vec::new(),
        warnings: Vec::new(),
        problems: problems.to_vec(),
        lost_pods: Vec::new(),
    }
}

//! A daemon of its own for each test, and pods that are the far ends of socketpairs.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use api::{
    Attach, AttachmentId, Decoder, ErrorReply, Mac, Reply, Request, Reserve, Status, encode_request,
};
use dataplane::wire::{EtherType, MacAddr, Protocol, ethernet, ipv4, udp};
use frame::{Packet, Pool};
use netio::port::{PortFd, Recv};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// A node's files.
pub(crate) struct Node {
    dir: TempDir,
}

/// The running daemon of the node; killed if a test fails.
pub(crate) struct Running<'n> {
    node: &'n Node,
    child: Child,
}

/// A pod's end of a port.
pub(crate) struct Pod {
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
    gateway_mac: Mac,
    port: PortFd,
    pool: Pool,
}

impl Node {
    /// With this pod prefix, or one of 254 addresses; neither NIC nor host port.
    pub(crate) fn new(prefix: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let prefix = if prefix.is_empty() { "198.18.1.0/24" } else { prefix };
        let node = Self { dir };
        let text = format!(
            "[node]\nname = \"test\"\npod_prefixes = [\"{prefix}\"]\n\
             cluster_prefixes = [\"198.18.0.0/16\"]\n\
             [host]\nenabled = false\n\
             [control]\nsocket = \"{}\"\nstate_dir = \"{}\"\n\
             [workers]\nframes = 64\n",
            node.socket().display(),
            node.dir.path().join("state").display(),
        );
        fs::write(node.config(), text).expect("the configuration can be written");
        node
    }

    /// Waits for the cluster to assign its prefixes.
    pub(crate) fn without_prefixes() -> Self {
        let node = Self::new("");
        node.write(&node.text().replace("pod_prefixes = [\"198.18.1.0/24\"]\n", ""));
        node
    }

    /// What is on disk of its state.
    pub(crate) fn journal(&self) -> String {
        let journal = fs::read_to_string(self.dir.path().join("state").join("journal"));
        journal.expect("the daemon made it")
    }

    pub(crate) fn append(&self, text: &str) {
        self.write(&(self.text() + text));
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.config()).expect("it was written")
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.config(), text).expect("the configuration can be written");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("vswitch.sock")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("vswitch.toml")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchd"));
        command.arg("--config").arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Runs the daemon until it ends by itself: its exit code and everything that it printed.
    pub(crate) fn run_to_end(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command().args(arguments).output().expect("the daemon can be executed");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it as systemd does: the socket is descriptor 3, and the environment announces it.
    pub(crate) fn activated(&self, socket: &UnixListener) -> Command {
        let socket = socket.try_clone().expect("a descriptor is free");
        let daemon = self.command();
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null")
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .stdin(OwnedFd::from(socket));
        command
    }

    /// Starts it under a supervisor, which then is what runs.
    pub(crate) fn supervised(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchd"));
        command.arg("supervise").arg("--config").arg(self.config()).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Running<'_> {
        self.start_as(self.command())
    }

    pub(crate) fn start_as(&self, mut command: Command) -> Running<'_> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("the log can be opened");
        let child = command.stderr(log).stdout(Stdio::null()).spawn();
        let mut running = Running { node: self, child: child.expect("the daemon can be executed") };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let ended = running.child.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < deadline, "no daemon:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        running
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Running<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.node.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    }

    pub(crate) fn try_ask(&self, request: &Request) -> Result<Reply, ErrorReply> {
        let mut stream = self.connect();
        let bytes = encode_request(request).expect("a request is small");
        // One that refuses us closes before it has read everything: its answer gives the reason.
        let _ = stream.write_all(&bytes);
        self.answer(stream)
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.try_ask(request).unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()))
    }

    pub(crate) fn answer(&self, mut stream: UnixStream) -> Result<Reply, ErrorReply> {
        let mut decoder = Decoder::for_responses();
        let mut buffer = [0; 4096];
        loop {
            if let Some(response) = decoder.next_response().expect("ours") {
                return response;
            }
            let count = stream.read(&mut buffer).expect("an answer in time");
            assert!(count > 0, "the daemon hung up:\n{}", self.node.log());
            decoder.feed(&buffer[..count]);
        }
    }

    /// The first status of which this holds.
    pub(crate) fn status_once(&self, holds: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Reply::Status(status) = self.ask(&Request::Status) else { panic!("not a status") };
            if holds(&status) {
                return *status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn attach(&self, name: &str, mac: Mac, fd: OwnedFd) -> Result<Reply, ErrorReply> {
        self.attach_queues(name, mac, vec![fd])
    }

    pub(crate) fn attach_queues(
        &self,
        name: &str,
        mac: Mac,
        queues: Vec<OwnedFd>,
    ) -> Result<Reply, ErrorReply> {
        let stream = self.connect();
        let attach = Attach { attachment: Pod::id(name), mac, queues: queues.len() as u8 };
        let bytes = encode_request(&Request::Attach(attach)).expect("a request is small");
        let fds: Vec<_> = queues.iter().map(AsFd::as_fd).collect();
        let sent = netio::fdpass::send(&stream, &bytes, &fds).expect("the daemon reads");
        assert_eq!(sent, bytes.len());
        self.answer(stream)
    }

    pub(crate) fn plug(&self, name: &str) -> Pod {
        self.plug_as(Pod::reserve(name))
    }

    pub(crate) fn plug_as(&self, reserve: Reserve) -> Pod {
        self.plug_queues(reserve).remove(0)
    }

    /// The pod by each queue of its interface.
    pub(crate) fn plug_queues(&self, reserve: Reserve) -> Vec<Pod> {
        let name = reserve.attachment.container_id.clone();
        let Reply::Reserved(reserved) = self.ask(&Request::Reserve(reserve)) else {
            panic!("not a reservation")
        };
        let pairs = (0..reserved.queues).map(|_| PortFd::pair().expect("a socketpair"));
        let (ours, ports): (Vec<_>, Vec<_>) =
            pairs.map(|(ours, port)| (OwnedFd::from(ours), port)).unzip();
        let attached = self.attach_queues(&name, reserved.mac, ours);
        assert_eq!(attached, Ok(Reply::Done), "{}", self.node.log());
        let pod = |port| Pod {
            address: reserved.addresses[0].addr(),
            mac: reserved.mac,
            gateway_mac: reserved.gateway_mac,
            port,
            pool: Pool::new(2),
        };
        ports.into_iter().map(pod).collect()
    }

    /// The name of a pod's port.
    pub(crate) fn port_of(&self, pod: &Pod) -> String {
        let Reply::Ports(ports) = self.ask(&Request::ShowPorts) else { panic!("not ports") };
        let port = ports.into_iter().find(|port| port.addresses.contains(&pod.address));
        port.expect("it is attached").name
    }

    pub(crate) fn open_fds(&self) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        fds.expect("it lives").count()
    }

    /// Memory of its own that it has, in KB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kb = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kb.expect("every Linux counts it")
    }

    /// Whether the daemon comes back to so many open file descriptors or fewer: one of a client
    /// that had just gone may have been counted.
    pub(crate) fn settles(&self, fds: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.open_fds() > fds {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Sends SIGHUP; returns once the log has these words anew.
    pub(crate) fn reload(&self, words: &str) {
        let lines = || self.node.log().lines().filter(|line| line.contains(words)).count();
        let before = lines();
        self.signal("-HUP");
        let deadline = Instant::now() + PATIENCE;
        while lines() == before {
            assert!(Instant::now() < deadline, "it does not say {words}:\n{}", self.node.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill can be executed").success());
    }

    /// The process of the daemon that a supervisor runs.
    pub(crate) fn daemon_of_supervisor(&self) -> Option<u32> {
        let own = self.child.id().to_string();
        let processes = fs::read_dir("/proc").expect("every Linux has it").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // proc_pid_stat(5): the name may have anything in it, but it ends with the last parenthesis.
            let after = stat.rsplit_once(") ").map(|(_, after)| after).unwrap_or_default();
            after.split(' ').nth(1) == Some(own.as_str())
        })
    }

    /// Signals the daemon that a supervisor runs; returns once another is there.
    pub(crate) fn ends_daemon(&self, signal: &str) {
        let former = self.daemon_of_supervisor().expect("one runs");
        let status = Command::new("kill").args([signal, &former.to_string()]).status();
        assert!(status.expect("kill can be executed").success());
        let deadline = Instant::now() + PATIENCE;
        while self.daemon_of_supervisor().is_none_or(|pid| pid == former) {
            assert!(Instant::now() < deadline, "no other daemon comes:\n{}", self.node.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code of what ends by itself.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.node.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; it must end well and in time.
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                assert_eq!(status.code(), Some(0), "{}", self.node.log());
                return;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.node.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pod {
    pub(crate) fn id(name: &str) -> AttachmentId {
        AttachmentId { container_id: name.to_owned(), ifname: "eth0".to_owned() }
    }

    pub(crate) fn reserve(name: &str) -> Reserve {
        Reserve {
            attachment: Self::id(name),
            network: None,
            pod: None,
            container_name: None,
            netns: "/nowhere/netns/pod".to_owned(),
            mode: None,
            delegated: None,
            requested: Vec::new(),
            ranges: Vec::new(),
            mac: None,
            port_mappings: Vec::new(),
            bandwidth: api::Bandwidth::default(),
            queues: 1,
        }
    }

    pub(crate) fn send_udp(&self, to: &Self, payload: &[u8]) {
        let IpAddr::V4(to) = to.address else { panic!("the test's pods have IPv4") };
        self.send_udp_to(to, payload);
    }

    pub(crate) fn send_udp_to(&self, to: Ipv4Addr, payload: &[u8]) {
        self.send_udp_by(self.gateway_mac, to, payload);
    }

    /// To another pod of its segment, by that one's MAC.
    pub(crate) fn send_udp_directly(&self, to: &Self, payload: &[u8]) {
        let IpAddr::V4(address) = to.address else { panic!("the test's pods have IPv4") };
        self.send_udp_by(to.mac, address, payload);
    }

    fn send_udp_by(&self, mac: Mac, to: Ipv4Addr, payload: &[u8]) {
        let IpAddr::V4(source) = self.address else { panic!("the test's pods have IPv4") };
        let datagram = udp::HEADER_LEN + payload.len();
        let mut bytes = vec![0; ipv4::HEADER_LEN + datagram];
        let ip = ipv4::Repr {
            tos: 0,
            total_len: bytes.len() as u16,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: Protocol::UDP,
            source,
            destination: to,
        };
        ip.emit(&mut bytes).expect("room");
        let header =
            udp::Repr { source: 1000, destination: 2000, len: datagram as u16, checksum: 0 };
        header.emit(&mut bytes[ipv4::HEADER_LEN..]).expect("room");
        bytes[ipv4::HEADER_LEN + udp::HEADER_LEN..].copy_from_slice(payload);
        self.send_frame(mac, EtherType::IPV4, &bytes);
    }

    fn send_frame(&self, destination: Mac, ethertype: EtherType, payload: &[u8]) {
        let mut frame = self.pool.alloc().expect("a frame is free");
        let bytes = frame.extend(ethernet::HEADER_LEN + payload.len()).expect("room");
        let header = ethernet::Repr {
            destination: MacAddr(destination.0),
            source: MacAddr(self.mac.0),
            ethertype,
        };
        header.emit(bytes).expect("room");
        bytes[ethernet::HEADER_LEN..].copy_from_slice(payload);
        self.port.send(&mut Packet::plain(frame)).expect("the daemon reads");
    }

    /// The next frame, or `None` if none comes.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::plain(self.pool.alloc().expect("a frame is free"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.port.recv(&mut packet) {
                Recv::Packet => return Some(packet.frame.to_vec()),
                Recv::WouldBlock => thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
        None
    }

    /// Whether the daemon lets go of its end.
    pub(crate) fn is_closed(&self) -> bool {
        let mut packet = Packet::plain(self.pool.alloc().expect("a frame is free"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.port.recv(&mut packet), Recv::Gone) {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

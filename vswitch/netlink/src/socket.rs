//! One request, its answers, and the kernel's acknowledgement.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::{Error, Result};

/// How often a dump that changed under the reader's eyes is begun again.
const DUMP_ATTEMPTS: usize = 8;

// include/uapi/linux/netlink.h.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// Room for one datagram: the kernel makes those of a dump as long as the reader's room, up to
/// 32 KB, and its notifications are shorter.
pub(crate) const DATAGRAM_BYTES: usize = 1 << 15;

/// The longest that the next datagram of an answer is waited for. The kernel makes each while it is asked for it, in
/// milliseconds; the daemon's service manager is patient for five seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a whole answer may take: a million routes take some seconds.
pub(crate) const WHOLE_ANSWER: Duration = Duration::from_secs(20);

/// A socket for requests. Not shared: one request at a time.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::Socket { action: "open", source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        be_patient(&socket, PATIENCE)?;
        // Has the kernel filter dumps by the request's attributes (Linux 4.20). Without it we filter
        // alone, as we do in any case.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change.
    pub(crate) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl Display,
    ) -> Result<()> {
        self.ask(message, flags).map(drop).map_err(|error| error.on(action))
    }

    /// As `change`; false if there was nothing to change.
    pub(crate) fn remove(
        &mut self,
        message: RouteNetlinkMessage,
        action: impl Display,
    ) -> Result<bool> {
        match self.ask(message, 0) {
            Ok(_) => Ok(true),
            Err(Failure::Refused(error))
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL)
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.on(action)),
        }
    }

    /// Asks for all of a kind. A message that cannot be read is left out: one odd device must not
    /// hide the others.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        action: impl Display,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut request = request(message, NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(&mut request) {
                Ok(Answers { interrupted: true, .. }) => {}
                Ok(Answers { messages, .. }) => return Ok(messages),
                // There is no such table yet.
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
                Err(error) => return Err(error.on(action)),
            }
        }
        let reason = format!("the tables changed {DUMP_ATTEMPTS} times while they were read");
        Err(Error::Malformed { reason })
    }

    /// As `dump`, for a great many: each message's type, flags and payload as they come. What
    /// changes meanwhile may be among them or not; the monitor announces it in any case.
    pub(crate) fn dump_each(
        &mut self,
        message: RouteNetlinkMessage,
        action: impl Display,
        mut each: impl FnMut(u16, u16, &[u8]),
    ) -> Result<()> {
        let outcome = self
            .send(&mut request(message, NLM_F_DUMP))
            .and_then(|()| self.receive(|part| take_raw(part, &mut each)));
        match outcome {
            // There is no such table yet.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome.map_err(|error| error.on(action)),
        }
    }

    /// Asks for one thing.
    pub(crate) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, Failure> {
        let answers = self.exchange(&mut request(message, flags | NLM_F_ACK))?;
        match answers.unreadable {
            Some(reason) => Err(Failure::Unreadable(reason)),
            None => Ok(answers.messages),
        }
    }

    fn exchange(&mut self, request: &mut Request) -> std::result::Result<Answers, Failure> {
        self.send(request)?;
        let mut answers = Answers::default();
        self.receive(|part| take(part, &mut answers))?;
        Ok(answers)
    }

    /// Sends a request, again under a number of its own.
    fn send(&mut self, request: &mut Request) -> std::result::Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        request.header.sequence_number = self.sequence;
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let kernel = SocketAddr::new(0, 0);
        match self.socket.send_to(&bytes, &kernel, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Failure::Socket { action: "write to", source }),
        }
    }

    /// Gives the messages of the answer to `take`, until one is marked as the last.
    fn receive(
        &mut self,
        mut take: impl FnMut(&[u8]) -> std::result::Result<bool, Failure>,
    ) -> std::result::Result<(), Failure> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        let until = Instant::now() + WHOLE_ANSWER;
        loop {
            read(&self.socket, &mut datagram, until)?;
            if answer(&datagram, self.sequence, &mut take)? {
                return Ok(());
            }
        }
    }
}

/// Bounds how long a read of this socket waits.
pub(crate) fn be_patient(socket: &Socket, patience: Duration) -> Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(patience))
        .map_err(|error| Error::Socket { action: "bound the waits of", source: error.into() })
}

/// Reads the kernel's next datagram, from a socket that is [`be_patient`].
pub(crate) fn read(
    socket: &Socket,
    datagram: &mut Vec<u8>,
    until: Instant,
) -> std::result::Result<(), Failure> {
    while Instant::now() < until {
        datagram.clear();
        match socket.recv_from(datagram, 0) {
            Ok((_, from)) if from.port_number() == 0 => return Ok(()),
            // Another process's.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::NoAnswer { waited: PATIENCE });
            }
            Err(source) => return Err(Failure::Socket { action: "read from", source }),
        }
    }
    Err(Failure::NoAnswer { waited: WHOLE_ANSWER })
}

/// Gives the messages of a datagram that answer the request of this number to `take`, until it finds the
/// last one; whether it did. Others answer an earlier request that failed half-way.
pub(crate) fn answer(
    datagram: &[u8],
    sequence: u32,
    mut take: impl FnMut(&[u8]) -> std::result::Result<bool, Failure>,
) -> std::result::Result<bool, Failure> {
    for part in parts(datagram) {
        let is_ours = Header::of(part).is_some_and(|header| header.sequence == sequence);
        if is_ours && take(part)? {
            return Ok(true);
        }
    }
    Ok(false)
}

type Request = NetlinkMessage<RouteNetlinkMessage>;

/// A request that is not numbered yet. It is not cloned for another attempt: that would be code for
/// every message of rtnetlink.
fn request(message: RouteNetlinkMessage, flags: u16) -> Request {
    let mut header = NetlinkHeader::default();
    header.flags = flags | NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    request.finalize();
    request
}

/// Takes one message of a datagram as it comes; true if it was the last of the answer.
pub(crate) fn take_raw(
    part: &[u8],
    mut each: impl FnMut(u16, u16, &[u8]),
) -> std::result::Result<bool, Failure> {
    let Some(header) = Header::of(part) else { return Ok(false) };
    match header.kind {
        NLMSG_DONE => Ok(true),
        NLMSG_ERROR => match header.error() {
            0 => Ok(true),
            errno => Err(Failure::Refused(io::Error::from_raw_os_error(errno))),
        },
        kind => {
            each(kind, header.flags, header.payload);
            Ok(false)
        }
    }
}

/// Takes one message of a datagram; true if it was the last of the answer.
pub(crate) fn take(part: &[u8], answers: &mut Answers) -> std::result::Result<bool, Failure> {
    let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(part) {
        Ok(message) => message,
        Err(error) => {
            answers.unreadable = Some(error.to_string());
            return Ok(false);
        }
    };
    answers.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => answers.messages.push(inner),
        NetlinkPayload::Done(_) => return Ok(true),
        NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
        NetlinkPayload::Error(error) => {
            let errno = errno(error.raw_code());
            return Err(Failure::Refused(io::Error::from_raw_os_error(errno)));
        }
        _ => {}
    }
    Ok(false)
}

/// `struct nlmsghdr`, and what follows it.
pub(crate) struct Header<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The socket that asked for what a notification announces, mostly its process's number; 0 for
    /// the kernel itself.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header of one of [`parts`].
    pub(crate) fn of(part: &'a [u8]) -> Option<Self> {
        let ([_, _, _, _, k0, k1, f0, f1, s0, s1, s2, s3, port @ ..], payload) =
            part.split_first_chunk::<16>()?;
        Some(Self {
            kind: u16::from_ne_bytes([*k0, *k1]),
            flags: u16::from_ne_bytes([*f0, *f1]),
            sequence: u32::from_ne_bytes([*s0, *s1, *s2, *s3]),
            port: u32::from_ne_bytes(*port),
            payload,
        })
    }

    /// The number of the error that one of the kind NLMSG_ERROR has; 0 acknowledges.
    fn error(&self) -> i32 {
        errno(self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes)))
    }
}

/// The number of an error, which the kernel has below zero. The lowest of all has no counterpart, and is no
/// error's.
fn errno(code: i32) -> i32 {
    code.checked_neg().unwrap_or(libc::EIO)
}

/// What an answer has.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) messages: Vec<RouteNetlinkMessage>,
    /// The tables changed while they were dumped.
    interrupted: bool,
    /// Why a message could not be read.
    unreadable: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(io::Error),
    Unreadable(String),
    NoAnswer { waited: Duration },
    Socket { action: &'static str, source: io::Error },
}

impl Failure {
    /// The kernel's error number, if it refused.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.raw_os_error(),
            Self::Unreadable(_) | Self::NoAnswer { .. } | Self::Socket { .. } => None,
        }
    }

    pub(crate) fn on(self, action: impl Display) -> Error {
        match self {
            Self::Refused(source) => Error::Refused { action: action.to_string(), source },
            Self::Unreadable(reason) => Error::Malformed { reason },
            Self::NoAnswer { waited } => {
                Error::NoAnswer { action: action.to_string(), seconds: waited.as_secs() }
            }
            Self::Socket { action, source } => Error::Socket { action, source },
        }
    }
}

/// The messages of a datagram, each from its header on; a length that does not fit ends it.
pub(crate) fn parts(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    /// `struct nlmsghdr`, which begins with its length.
    const HEADER_BYTES: usize = 16;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        if len < HEADER_BYTES {
            return None;
        }
        let part = datagram.get(..len)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use netlink_packet_core::NLM_F_ACK;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

    use super::{
        Failure, NLMSG_ERROR, Netlink, answer, be_patient, errno, parts, read, request, take_raw,
    };

    /// No longer than a test may wait.
    const NO_PATIENCE: Duration = Duration::from_millis(20);

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for() {
        let mut netlink = Netlink::open().expect("a socket");
        be_patient(&netlink.socket, NO_PATIENCE).expect("the kernel bounds it");
        let refused = netlink.receive(|_| Ok(true)).expect_err("nothing was asked");
        let told = refused.on("list the interfaces").to_string();
        let wanted = "the kernel did not answer the request to list the interfaces within 2 s;";
        assert!(told.starts_with(wanted), "{told}");
        // One that comes late is none to the next request.
        netlink.send(&mut request(links(), NLM_F_ACK)).expect("sent");
        assert!(!netlink.dump(links(), "list the interfaces").expect("answered").is_empty());
    }

    fn links() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessage::default())
    }

    #[test]
    fn datagrams_of_other_processes_are_no_answer() {
        let (mut ours, mut other) = (socket(), socket());
        be_patient(&ours, NO_PATIENCE).expect("the kernel bounds it");
        let own = ours.bind_auto().expect("bound");
        other.bind_auto().expect("bound");
        // Without CAP_NET_ADMIN processes may not send to one another.
        for _ in 0..3 {
            let _ = other.send_to(b"something", &SocketAddr::new(own.port_number(), 0), 0);
        }
        let read = |until| read(&ours, &mut Vec::with_capacity(99), until);
        assert!(matches!(read(Instant::now()), Err(Failure::NoAnswer { .. })), "time is over");
        let later = Instant::now() + Duration::from_secs(60);
        assert!(matches!(read(later), Err(Failure::NoAnswer { .. })), "it is the kernel's");
    }

    fn socket() -> Socket {
        Socket::new(NETLINK_ROUTE).expect("a socket")
    }

    fn message(len: u32, bytes: usize) -> Vec<u8> {
        let mut message = len.to_ne_bytes().to_vec();
        message.resize(bytes, 0xa5);
        message
    }

    #[test]
    fn messages_follow_one_another_on_words() {
        let datagram = [message(18, 20), message(16, 16)].concat();
        let lens: Vec<_> = parts(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lens, [18, 16]);
    }

    #[test]
    fn any_number_of_an_error_is_a_refusal() {
        let refusal = |code: i32| {
            let mut datagram = 20_u32.to_ne_bytes().to_vec();
            datagram.extend(NLMSG_ERROR.to_ne_bytes());
            datagram.extend([0; 10]);
            datagram.extend(code.to_ne_bytes());
            answer(&datagram, 0, |part| take_raw(part, |_, _, _| ())).err()?.errno()
        };
        assert_eq!(refusal(0), None, "an acknowledgement");
        assert_eq!(refusal(-libc::ENOENT), Some(libc::ENOENT));
        assert_eq!(refusal(i32::MIN), Some(libc::EIO));
        assert_eq!(errno(-libc::EPERM), libc::EPERM);
    }

    #[test]
    fn lengths_that_lie_end_the_datagram() {
        for (what, datagram) in [
            ("nothing", vec![]),
            ("less than a length", vec![16, 0, 0]),
            ("a length of nothing", message(0, 32)),
            ("less than a header", message(15, 32)),
            ("more than there is", message(33, 32)),
            ("the largest there can be", message(u32::MAX, 32)),
        ] {
            assert_eq!(parts(&datagram).count(), 0, "{what}");
        }
    }
}

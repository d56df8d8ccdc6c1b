//! Descriptors that outlive the daemon: the service manager keeps them, and passes them to the next one.
//!
//! Enters: the descriptor of each port and the listening socket, when they are made or arrive; those
//! that a former daemon left. Leaves: messages to the service manager; ports by name, to the start. What
//! a pod sends while no daemon runs waits in its TAP's queue, as the TAP is still open.
//!
//! | name | is |
//! |---|---|
//! | `control`     | the listening socket, where the daemon made it itself |
//! | `host`        | the host port |
//! | `pod-IFNAME-CONTAINER-HASH` | a pod's port, and the process whose namespace it is in, if its path names one |
//! | `pod-IFNAME-CONTAINER-HASH-qN` | another queue of such a port, N from 1 on |
//!
//! Queues have names of their own because of versions that know one queue: such a daemon has the descriptors of
//! these names closed, as of pods that it does not know, and the kernel gives it the pod's packets by the one queue
//! that is left.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use api::{AttachmentId, Fnv, MAX_QUEUES};
use netio::activation::Inherited;
use netio::port::{PortFd, Spread};
use rustix::io::Errno;

use crate::error::chain;
use crate::notify::Notify;

/// The listening socket.
pub const CONTROL: &str = "control";
/// The host port.
pub const HOST: &str = "host";
/// What pods' names begin with.
const POD: &str = "pod-";
/// What stands before the number of a further queue.
const QUEUE: &str = "-q";

/// The name of a pod's descriptors: what people recognize of the attachment, and a hash of all of it,
/// as a name has no more than 255 characters and no colon (sd_pid_notify_with_fds(3)).
#[must_use]
pub fn name_of(attachment: &AttachmentId) -> String {
    let AttachmentId { container_id, ifname } = attachment;
    let plain = |text: &str| -> String {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        text.chars().take(15).map(|char| if is_plain(char) { char } else { '_' }).collect()
    };
    let mut hash = Fnv::default();
    // The slash is in neither.
    for part in [ifname.as_bytes(), b"/", container_id.as_bytes()] {
        hash.write(part);
    }
    format!("{POD}{}-{}-{:016x}", plain(ifname), plain(container_id), hash.finish())
}

/// The name of another queue of the port that has this name.
fn queue_name(name: &str, number: usize) -> String {
    format!("{name}{QUEUE}{number}")
}

/// The name of a port and the number of its queue, of the name of a queue.
fn port_and_queue(name: &str) -> (&str, usize) {
    let parts = name.rsplit_once(QUEUE).filter(|(port, _)| port.starts_with(POD));
    // Where a container's name has these letters, no number follows.
    let numbered = parts.and_then(|(port, number)| Some((port, number.parse().ok()?)));
    numbered.unwrap_or((name, 0))
}

/// Every name that the queues of a port may have: of several, one may be all that is left.
fn names_of(name: &str, fds: &PortFds) -> Vec<String> {
    let has_several = !fds.more.is_empty() || fds.port.is_multi_queue();
    let queues = if has_several { usize::from(MAX_QUEUES) } else { 1 };
    (1..queues).map(|number| queue_name(name, number)).chain([name.to_owned()]).collect()
}

/// A port's descriptors.
#[derive(Debug, Clone)]
pub struct PortFds {
    /// The TAP, or its first queue.
    pub port: Arc<PortFd>,
    /// Its other queues.
    pub more: Vec<Arc<PortFd>>,
    /// The process whose namespace the TAP is in, if the namespace's path names one.
    pub process: Option<Arc<OwnedFd>>,
}

impl PortFds {
    /// A port without a process.
    #[must_use]
    pub fn of(port: Arc<PortFd>) -> Self {
        Self { port, more: Vec::new(), process: None }
    }

    /// All queues, in their order.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<PortFd>> {
        std::iter::once(&self.port).chain(&self.more).map(Arc::clone).collect()
    }

    /// Has the kernel give packets to as many queues as there are workers to read them; answers with how many
    /// that is, and with the reason where it is one although it could be more.
    ///
    /// # Errors
    /// If packets would be lost in a queue that nobody reads.
    pub fn spread(&self, workers: usize) -> netio::Result<Spread> {
        let queues: Vec<&PortFd> =
            std::iter::once(&self.port).chain(&self.more).map(Arc::as_ref).collect();
        netio::port::spread(&queues, workers)
    }
}

/// The service manager's store of descriptors.
#[derive(Debug, Default)]
pub struct DescriptorStore {
    notify: Notify,
    /// Messages that the service manager did not take yet, in order.
    owed: VecDeque<Message>,
    /// It was logged that it takes none.
    is_refused: bool,
}

#[derive(Debug)]
enum Message {
    Keep(String, PortFds),
    Forget(String),
}

impl DescriptorStore {
    /// The store of this service manager.
    #[must_use]
    pub fn new(notify: Notify) -> Self {
        Self { notify, ..Self::default() }
    }

    /// Has a port's descriptors kept under a name, and names made of it.
    pub fn keep(&mut self, name: &str, fds: PortFds) {
        let more = fds.more.iter().enumerate();
        let more = more.map(|(at, queue)| {
            Message::Keep(queue_name(name, at + 1), PortFds::of(Arc::clone(queue)))
        });
        self.owed.extend(more);
        self.owed.push_back(Message::Keep(name.to_owned(), fds));
        self.settle();
    }

    /// Has the listening socket kept; true if there is somebody to keep it.
    pub fn keep_socket(notify: &Notify, socket: impl AsFd) -> bool {
        let message = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={CONTROL}");
        notify.is_heard() && notify.send_with(&message, &[socket.as_fd()]).is_ok()
    }

    /// Has the descriptors of this name forgotten.
    pub fn forget(&mut self, name: &str) {
        self.owe_forgetting(name.to_owned());
        self.settle();
    }

    /// Has a port's descriptors forgotten, as `keep` names them.
    pub fn forget_port(&mut self, name: &str, fds: &PortFds) {
        names_of(name, fds).into_iter().for_each(|name| self.owe_forgetting(name));
        self.settle();
    }

    fn owe_forgetting(&mut self, name: String) {
        // What waits would keep them open.
        self.owed.retain(|message| !matches!(message, Message::Keep(kept, _) if *kept == name));
        self.owed.push_back(Message::Forget(name));
    }

    /// Sends what the service manager did not take; called once a second, too. A message that is lost would
    /// leave it with the descriptors of a pod that is gone, or without those of one that is there.
    pub fn settle(&mut self) {
        while let Some(message) = self.owed.front() {
            let sent = match message {
                Message::Keep(..) if failpoint::hit("store-keep").is_err() => Err(Errno::IO),
                Message::Forget(_) if failpoint::hit("store-forget").is_err() => Err(Errno::IO),
                // Not watched: each packet would wake the service manager's watch of it, too.
                Message::Keep(name, PortFds { port, process, more: _ }) => {
                    let fds: Vec<_> = std::iter::once(port.as_fd())
                        .chain(process.iter().map(|process| process.as_fd()))
                        .collect();
                    self.notify.send_with(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &fds)
                }
                Message::Forget(name) => {
                    self.notify.send_with(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
                }
            };
            match sent {
                Ok(()) => self.is_refused = false,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => return,
                // What it is, and not who takes it, is the obstacle.
                Err(error @ (Errno::INVAL | Errno::MSGSIZE | Errno::BADF)) => {
                    tracing::warn!("the service manager is not told {message:?}: {error}");
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_refused, true) {
                        tracing::warn!(
                            "the service manager does not take {message:?} yet: {error}"
                        );
                    }
                    return;
                }
            }
            self.owed.pop_front();
        }
    }
}

/// What a former daemon left with the service manager.
#[derive(Debug, Default)]
pub struct Left {
    /// Sockets: the listening one, if there is one.
    pub sockets: Vec<OwnedFd>,
    /// The host port.
    pub host: Option<PortFd>,
    /// Pods' ports, by name.
    pods: BTreeMap<String, PortFds>,
    /// Names under which nothing is that can be used.
    unusable: Vec<String>,
}

impl Left {
    /// Tells them apart by their names.
    #[must_use]
    pub fn sort(inherited: Vec<Inherited>) -> Self {
        let mut left = Self::default();
        let mut processes = BTreeMap::new();
        let mut queues = BTreeMap::<String, BTreeMap<usize, Arc<PortFd>>>::new();
        for Inherited { name, fd } in inherited {
            if name != HOST && !name.starts_with(POD) {
                left.sockets.push(fd);
                continue;
            }
            if name != HOST && is_process(&fd) {
                processes.insert(name, Arc::new(fd));
                continue;
            }
            match PortFd::adopt(fd) {
                Ok(port) if name == HOST => left.host = Some(port),
                Ok(queue) => {
                    let (port, number) = port_and_queue(&name);
                    queues.entry(port.to_owned()).or_default().insert(number, Arc::new(queue));
                }
                // The pod ended meanwhile, and its device with it.
                Err(error) => {
                    tracing::info!("descriptor {name} is of no use any more: {}", chain(&error));
                    left.unusable.push(name);
                }
            }
        }
        for (name, queues) in queues {
            let mut queues = queues.into_values();
            let Some(port) = queues.next() else { continue };
            left.pods.insert(name, PortFds { port, more: queues.collect(), process: None });
        }
        for (name, process) in processes {
            match left.pods.get_mut(&name) {
                Some(fds) => fds.process = Some(process),
                None => left.unusable.push(name),
            }
        }
        left
    }

    /// The port of an attachment.
    pub fn take(&mut self, attachment: &AttachmentId) -> Option<PortFds> {
        self.pods.remove(&name_of(attachment))
    }

    /// Names of what nobody took: ports that the journal does not know, and those that are unusable. The
    /// interfaces stay: what knows nothing of a pod must not cut it off for good.
    #[must_use]
    pub fn into_names(self) -> Vec<String> {
        let names = self.pods.iter().flat_map(|(name, fds)| names_of(name, fds));
        names.chain(self.unusable).collect()
    }
}

/// A pidfd: `/proc/self/fd` shows it as such.
fn is_process(fd: &OwnedFd) -> bool {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
    link.is_ok_and(|link| link.to_bytes() == b"anon_inode:[pidfd]")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::AttachmentId;
    use netio::activation::Inherited;
    use netio::port::PortFd;

    use super::{HOST, Left, PortFds, name_of, port_and_queue, queue_name};

    fn id(container_id: &str) -> AttachmentId {
        AttachmentId { container_id: container_id.into(), ifname: "eth0".into() }
    }

    #[test]
    fn names_are_short_plain_and_different() {
        let (a, b) = (id(&"a".repeat(256)), id(&format!("{}b", "a".repeat(255))));
        let names = [name_of(&a), name_of(&b), name_of(&id("x:y\n"))];
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() < 64 && !name.contains([':', '\n'])));
        assert!(names[2].starts_with("pod-eth0-x_y_-"), "{}", names[2]);
    }

    #[test]
    fn what_was_left_is_found_by_name_and_the_rest_is_named() {
        let (a, _other_a) = PortFd::pair().expect("a socketpair");
        let (b, _other_b) = PortFd::pair().expect("a socketpair");
        let (host, _other_host) = PortFd::pair().expect("a socketpair");
        let null = std::fs::File::open("/dev/null").expect("every Linux has it");
        let inherited = [
            (name_of(&id("a")), a.into()),
            (name_of(&id("b")), b.into()),
            (HOST.to_owned(), host.into()),
            (name_of(&id("gone")), null.into()),
        ];
        let inherited = inherited.map(|(name, fd)| Inherited { name, fd });
        let mut left = Left::sort(inherited.into());
        assert!(left.host.is_some() && left.sockets.is_empty());
        let a = left.take(&id("a")).expect("it is there");
        assert_eq!(Arc::strong_count(&a.port), 1);
        assert!(left.take(&id("c")).is_none());
        assert_eq!(left.into_names(), [name_of(&id("b")), name_of(&id("gone"))]);
    }

    #[test]
    fn queues_are_found_by_the_name_of_their_port_in_their_order() {
        let name = name_of(&id("a"));
        let ends: Vec<_> = (0..3).map(|_| PortFd::pair().expect("a socketpair")).collect();
        let (queues, _others): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        let inodes: Vec<_> = queues.iter().map(inode).collect();
        let names = [name.clone(), queue_name(&name, 1), queue_name(&name, 2)];
        let inherited = names.into_iter().zip(queues);
        let mut inherited: Vec<_> =
            inherited.map(|(name, fd)| Inherited { name, fd: fd.into() }).collect();
        inherited.reverse();
        let fds = Left::sort(inherited).take(&id("a")).expect("it is there");
        assert_eq!(fds.queues().iter().map(|queue| inode(queue)).collect::<Vec<_>>(), inodes);
    }

    #[test]
    fn a_queue_that_is_left_alone_is_the_port() {
        let name = name_of(&id("a"));
        let (queue, _other) = PortFd::pair().expect("a socketpair");
        let inherited = Inherited { name: queue_name(&name, 3), fd: queue.into() };
        let mut left = Left::sort(vec![inherited]);
        assert_eq!(left.take(&id("a")).expect("it is there").queues().len(), 1);
    }

    #[test]
    fn queues_that_nobody_took_are_all_named() {
        let name = name_of(&id("a"));
        let [one, two] = [(); 2].map(|()| PortFd::pair().expect("a socketpair").0);
        let fds = PortFds { more: vec![Arc::new(two)], ..PortFds::of(Arc::new(one)) };
        let left = Left { pods: [(name.clone(), fds)].into(), ..Left::default() };
        let names = left.into_names();
        assert!(names.contains(&name) && names.contains(&queue_name(&name, 1)), "{names:?}");
    }

    #[test]
    fn a_pod_of_any_name_is_not_taken_for_a_queue() {
        for container in ["a-q1", "q7", "-q"] {
            let name = name_of(&id(container));
            assert_eq!(port_and_queue(&name), (name.as_str(), 0));
            assert_eq!(port_and_queue(&queue_name(&name, 2)), (name.as_str(), 2));
        }
        assert_eq!(port_and_queue("host-q1"), ("host-q1", 0));
    }

    fn inode(queue: &PortFd) -> u64 {
        let link = rustix::fs::fstat(queue).expect("a socket");
        link.st_ino
    }
}

//! Services, between the agent and daemons that take them, refuse them, or do not know them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use api::{
    Decoder, ErrorKind, ErrorReply, PeerSpec, RefusedService, Reply, Request, Response,
    ServiceEntry, ServiceProtocol, ServiceSpec, Status, WithoutBackend, encode_response,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::Link;
use crate::desired::Peers;
use crate::service::index::Specs;

/// A daemon of these tests: what it holds, what it was asked, and how it is.
#[derive(Debug, Default)]
struct Daemon {
    /// It was made before there were services.
    is_old: bool,
    services: Specs,
    /// It refuses a service of this name.
    refuses: Option<&'static str>,
    asked: Vec<&'static str>,
}

/// How a daemon of these tests answers.
pub(super) trait Replies: Send + 'static {
    fn reply(&mut self, request: Request) -> Response;
}

impl Daemon {
    fn refusals(&self) -> Vec<RefusedService> {
        let refused = self.refuses.iter().map(|name| RefusedService {
            name: (*name).to_owned(),
            reason: "its port is 0".to_owned(),
        });
        refused.collect()
    }
}

pub(super) fn unknown() -> ErrorReply {
    let message = "the message is not one of this protocol".to_owned();
    ErrorReply { kind: ErrorKind::Invalid, message }
}

impl Replies for Daemon {
    fn reply(&mut self, request: Request) -> Response {
        match request {
            Request::ShowServices | Request::SyncServices(_) if self.is_old => {
                self.asked.push("unknown");
                Err(unknown())
            }
            Request::Status => Ok(Reply::Status(Box::new(status()))),
            Request::ShowPeers => Ok(Reply::Peers(Vec::new())),
            Request::ShowServices => {
                self.asked.push("show");
                let entry = |spec: &Arc<ServiceSpec>| ServiceEntry {
                    spec: (**spec).clone(),
                    refused: Vec::new(),
                };
                Ok(Reply::Services(self.services.values().map(entry).collect()))
            }
            Request::SyncPeers(_) => {
                self.asked.push("peers");
                Ok(Reply::Synced(Vec::new()))
            }
            Request::SyncServices(sync) => {
                self.asked.push("services");
                assert!(!sync.complete);
                sync.gone.iter().for_each(|name| drop(self.services.remove(name)));
                for spec in sync.services {
                    if self.refuses != Some(spec.name.as_str()) {
                        self.services.insert(spec.name.clone(), Arc::new(spec));
                    }
                }
                Ok(Reply::SyncedServices(self.refusals()))
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn status() -> Status {
    let status = json!({
        "version": "0", "node": "own", "uptime_seconds": 1, "epoch": 1, "pod_prefixes": [],
        "cluster_prefixes": [], "pod_mtu": 1450, "pods": 0, "peers": 0, "uplink": null,
        "workers": [], "host_interface": null, "masquerade": null,
        "publish_latency_us": null, "choices": [], "warnings": [],
    });
    serde_json::from_value(status).expect("a status")
}

/// Listens until the test ends. As vswitchd does, it closes a connection after a request that it does
/// not know.
pub(super) fn start<D: Replies>(path: &Path, daemon: D) -> Arc<Mutex<D>> {
    let listener = UnixListener::bind(path).expect("a socket");
    let daemon = Arc::new(Mutex::new(daemon));
    let shared = Arc::clone(&daemon);
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let daemon = Arc::clone(&shared);
            tokio::spawn(async move {
                let (mut decoder, mut chunk) = (Decoder::for_requests(), vec![0; 65_536]);
                loop {
                    while let Some(request) = decoder.next_request().expect("a request") {
                        let response = daemon.lock().expect("whole").reply(request);
                        let is_last = response.as_ref().is_err_and(|error| *error == unknown());
                        let bytes = encode_response(&response).expect("small");
                        stream.write_all(&bytes).await.expect("read");
                        if is_last {
                            return;
                        }
                    }
                    match stream.read(&mut chunk).await {
                        Ok(0) | Err(_) => return,
                        Ok(len) => decoder.feed(&chunk[..len]),
                    }
                }
            });
        }
    });
    daemon
}

fn specs(names: &[&str]) -> Specs {
    let spec = |name: &&str| ServiceSpec {
        name: (*name).to_owned(),
        protocol: ServiceProtocol::Tcp,
        port: 80,
        addresses: vec![[10, 96, 0, 1].into()],
        sources: Vec::new(),
        backends: Vec::new(),
        without_backend: WithoutBackend::Refuse,
        affinity_seconds: None,
    };
    names.iter().map(|name| ((*name).to_owned(), Arc::new(spec(name)))).collect()
}

fn one_peer() -> Peers {
    let peer = PeerSpec {
        name: "b".to_owned(),
        address: [203, 0, 113, 2].into(),
        prefixes: vec!["198.18.2.0/24".parse().expect("a prefix")],
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    };
    Peers::from([("b".to_owned(), peer)])
}

fn asked(daemon: &Mutex<Daemon>) -> Vec<&'static str> {
    std::mem::take(&mut daemon.lock().expect("whole").asked)
}

pub(super) fn test(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body);
}

#[test]
fn a_new_connection_says_only_what_differs() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let services = specs(&["shop/db:sql", "shop/old:http"]);
        let daemon = start(&path, Daemon { services, ..Daemon::default() });
        let wanted = specs(&["shop/db:sql", "shop/web:http"]);
        let mut link = Link::new(path.clone(), true, false);
        assert!(link.poll().await, "it is new");
        assert_eq!(link.program_services(&wanted, false).await, Some(&[][..]));
        assert_eq!(asked(&daemon), ["show", "services"]);
        assert_eq!(daemon.lock().expect("whole").services, wanted);
        link.program_services(&wanted, true).await;
        assert_eq!(asked(&daemon), [""; 0], "nothing has changed");
        let mut next = Link::new(path, true, false);
        next.poll().await;
        next.program_services(&wanted, true).await;
        assert_eq!(asked(&daemon), ["show"]);
    });
}

#[test]
fn what_is_refused_is_returned_until_it_is_taken() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon { refuses: Some("shop/db:sql"), ..Daemon::default() });
        let wanted = specs(&["shop/db:sql", "shop/web:http"]);
        let mut link = Link::new(path, true, false);
        link.poll().await;
        let refused = link.program_services(&wanted, false).await.map(<[_]>::len);
        assert_eq!(refused, Some(1));
        asked(&daemon);
        assert_eq!(link.program_services(&wanted, false).await.map(<[_]>::len), Some(1));
        assert_eq!(asked(&daemon), [""; 0], "it is not time yet");
        daemon.lock().expect("whole").refuses = None;
        assert_eq!(link.program_services(&wanted, true).await.map(<[_]>::len), Some(0));
        assert_eq!(daemon.lock().expect("whole").services, wanted);
    });
}

#[test]
fn a_daemon_that_knows_no_services_has_its_peers_all_the_same() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon { is_old: true, ..Daemon::default() });
        let mut link = Link::new(path, true, false);
        assert!(link.poll().await, "it is connected");
        let refused = link.program(None, &one_peer()).await;
        assert!(refused.peers.is_empty());
        assert_eq!(link.held().map(Peers::len), Some(1));
        assert_eq!(link.program_services(&specs(&["a/b:c"]), true).await, Some(&[][..]));
        link.poll().await;
        // It was asked once, on a connection of its own, and is left alone.
        assert_eq!(asked(&daemon), ["unknown", "peers"]);
        assert!(link.status().is_some());
    });
}

#[test]
fn where_services_are_switched_off_the_daemons_are_withdrawn() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let services = specs(&["shop/db:sql"]);
        let daemon = start(&path, Daemon { services, ..Daemon::default() });
        let mut link = Link::new(path, false, false);
        link.poll().await;
        let mut none = crate::service::index::Services::none();
        assert!(none.is_listed());
        link.program_services(none.settle(), false).await;
        assert!(daemon.lock().expect("whole").services.is_empty());
    });
}

//! The control socket of vswitchd.
//!
//! Enters: requests from `agent` and `install`. Leaves: replies. The connection stays open between
//! them: that it ends is how a daemon's end is seen at once.

use std::io;
use std::path::{Path, PathBuf};

use api::{
    ClientError, Decoder, PATIENCE, PeerEntry, PeerSync, PolicyDigest, PolicySync, READ_BYTES,
    RefusedPeer, RefusedRuleSet, RefusedService, Reply, Request, Response, ServiceEntry,
    ServiceSync, Status, encode_request,
};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Replies, or why there is none.
type Result<T> = std::result::Result<T, ClientError>;

/// A connection to the daemon; of no more use after an error other than `Refused`.
#[derive(Debug)]
pub struct DaemonClient {
    path: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
}

impl DaemonClient {
    /// Connects.
    ///
    /// # Errors
    /// If no process listens.
    pub async fn connect(path: &Path) -> Result<Self> {
        let connected = timeout(PATIENCE, UnixStream::connect(path)).await;
        let stream = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| ClientError::of_connect(path, error))?;
        Ok(Self { path: path.to_owned(), stream, decoder: Decoder::for_responses() })
    }

    /// Asks what runs.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn status(&mut self) -> Result<Status> {
        match self.call(&Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Asks for every peer, of whatever source.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn peers(&mut self) -> Result<Vec<PeerEntry>> {
        match self.call(&Request::ShowPeers).await? {
            Reply::Peers(peers) => Ok(peers),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Sends peers, and returns which were not taken.
    ///
    /// # Errors
    /// If there is no answer, or none of them was taken.
    pub async fn sync_peers(&mut self, sync: PeerSync) -> Result<Vec<RefusedPeer>> {
        match self.call(&Request::SyncPeers(sync)).await? {
            Reply::Synced(refused) => Ok(refused),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Asks for every service.
    ///
    /// # Errors
    /// If there is no answer; `Refused` by a daemon that knows no services, which then closes the
    /// connection.
    pub async fn services(&mut self) -> Result<Vec<ServiceEntry>> {
        match self.call(&Request::ShowServices).await? {
            Reply::Services(services) => Ok(services),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Sends services, and returns which are not taken, as a whole or in part.
    ///
    /// # Errors
    /// If there is no answer, or none of them was taken.
    pub async fn sync_services(&mut self, sync: ServiceSync) -> Result<Vec<RefusedService>> {
        match self.call(&Request::SyncServices(sync)).await? {
            Reply::SyncedServices(refused) => Ok(refused),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Asks what the daemon has of policies.
    ///
    /// # Errors
    /// If there is no answer; `Refused` by a daemon that knows no policies, which then closes the
    /// connection.
    pub async fn policy_digest(&mut self) -> Result<PolicyDigest> {
        match self.call(&Request::PolicyDigest).await? {
            Reply::PolicyDigest(digest) => Ok(digest),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Sends a part of a change of policies, and returns which rule sets are refused after the last one.
    ///
    /// # Errors
    /// If there is no answer, or the change was not taken.
    pub async fn sync_policies(&mut self, sync: PolicySync) -> Result<Vec<RefusedRuleSet>> {
        match self.call(&Request::SyncPolicies(sync)).await? {
            Reply::SyncedPolicies(refused) => Ok(refused),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Sends the prefixes that the pods get their addresses from.
    ///
    /// # Errors
    /// If there is no answer, or the daemon will not have them.
    pub async fn set_pod_prefixes(&mut self, prefixes: Vec<IpNet>) -> Result<()> {
        match self.call(&Request::SetPodPrefixes(prefixes)).await? {
            Reply::Done => Ok(()),
            other => Err(ClientError::unexpected(&self.path, &other)),
        }
    }

    /// Returns once the daemon has closed the connection.
    pub async fn closed(&self) {
        let mut byte = [0];
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // No request is open: what comes is the end, or nothing to be understood.
                _ => return,
            }
        }
    }

    async fn call(&mut self, request: &Request) -> Result<Reply> {
        let bytes = encode_request(request).map_err(ClientError::Request)?;
        let answer = timeout(PATIENCE, self.exchange(&bytes)).await;
        let silent = |_| Err(self.failed(io::ErrorKind::TimedOut.into()));
        answer.unwrap_or_else(silent)?.map_err(ClientError::Refused)
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        // A daemon that refuses us closes before it has read everything: its answer gives the reason.
        let sent = self.stream.write_all(request).await;
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let response = self.decoder.next_response();
            let misunderstood = |source| ClientError::Reply { path: self.path.clone(), source };
            if let Some(response) = response.map_err(misunderstood)? {
                return Ok(response);
            }
            match self.stream.read(&mut chunk).await.map_err(|error| self.failed(error))? {
                0 => {
                    sent.map_err(|error| self.failed(error))?;
                    return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
                }
                len => self.decoder.feed(&chunk[..len]),
            }
        }
    }

    fn failed(&self, error: io::Error) -> ClientError {
        ClientError::of_exchange(&self.path, PATIENCE, error)
    }
}

//! The control socket of vswitchd.
//!
//! Enters: requests from `agent` and `install`. Leaves: replies. The connection stays open between
//! them: that it ends is how a daemon's end is seen at once.

use std::io;
use std::path::Path;
use std::time::Duration;

use api::{Decoder, PeerEntry, PeerSync, RefusedPeer, Reply, Request, Status, encode_request};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// The daemon answers within a second, thousands of peers within a few.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 * 1024;

/// A connection to the daemon; of no more use after an error other than `Refused`.
#[derive(Debug)]
pub struct Daemon {
    stream: UnixStream,
    decoder: Decoder,
}

impl Daemon {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(path: &Path) -> Result<Self> {
        let connected = timeout(PATIENCE, UnixStream::connect(path));
        let stream = connected.await.map_err(|_| Error::SilentDaemon(PATIENCE))?;
        let stream = stream.map_err(|source| Error::NoDaemon { path: path.to_owned(), source })?;
        Ok(Self { stream, decoder: Decoder::for_responses() })
    }

    /// What runs.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn status(&mut self) -> Result<Status> {
        match self.call(&Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Every peer, whoever told of it.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn peers(&mut self) -> Result<Vec<PeerEntry>> {
        match self.call(&Request::ShowPeers).await? {
            Reply::Peers(peers) => Ok(peers),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells of peers, and is told which were not taken.
    ///
    /// # Errors
    /// If there is no answer, or none of them was taken.
    pub async fn sync_peers(&mut self, sync: PeerSync) -> Result<Vec<RefusedPeer>> {
        match self.call(&Request::SyncPeers(sync)).await? {
            Reply::Synced(refused) => Ok(refused),
            other => Err(unexpected(&other)),
        }
    }

    /// Says what the pods get their addresses from.
    ///
    /// # Errors
    /// If there is no answer, or the daemon will not have them.
    pub async fn set_pod_prefixes(&mut self, prefixes: Vec<IpNet>) -> Result<()> {
        match self.call(&Request::SetPodPrefixes(prefixes)).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
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
                // Nobody asked anything: what comes is the end, or nothing to be understood.
                _ => return,
            }
        }
    }

    async fn call(&mut self, request: &Request) -> Result<Reply> {
        let bytes = encode_request(request)?;
        let answer = timeout(PATIENCE, self.exchange(&bytes)).await;
        answer.map_err(|_| Error::SilentDaemon(PATIENCE))??.map_err(Error::Refused)
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<api::Response> {
        // A daemon that refuses us closes before it has read everything: its answer says why.
        let sent = self.stream.write_all(request).await;
        let mut chunk = vec![0; READ_BYTES];
        loop {
            if let Some(response) = self.decoder.next_response()? {
                return Ok(response);
            }
            match self.stream.read(&mut chunk).await.map_err(Error::DaemonGone)? {
                0 => {
                    sent.map_err(Error::DaemonGone)?;
                    return Err(Error::DaemonGone(io::ErrorKind::UnexpectedEof.into()));
                }
                len => self.decoder.feed(&chunk[..len]),
            }
        }
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Unexpected(format!("{reply:?}").chars().take(80).collect())
}

//! Length prefix and JSON.
//!
//! ```text
//!   0        4
//!   | length | JSON: {"version": 1, "message": …} |     length: big endian, of the JSON alone
//! ```
//!
//! The length is bounded before anything is allocated for it, so that a hostile prefix costs its
//! sender a closed connection, and others nothing.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{PROTOCOL_VERSION, Request, Response};

/// The largest request: all peers of a cluster at once. One with a name of 63 bytes, as Kubernetes'
/// nodes have, two prefixes and a VTEP's MAC is about 250 bytes; 10,000 of them are 2.5 MB. A CNI
/// call is below 4 KiB.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The largest response: a million routes at about 160 bytes each.
pub const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

const PREFIX_BYTES: usize = 4;

/// A decoder keeps so much memory between messages.
const KEPT_BYTES: usize = 64 * 1024;

/// A message that cannot be encoded or decoded; the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// More than the bound.
    #[error("a message of {len} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Announced length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Not the JSON of a message.
    #[error("the message is not one of this protocol")]
    Json(#[from] serde_json::Error),
    /// Another protocol version.
    #[error(
        "the peer speaks protocol version {theirs}, this side {PROTOCOL_VERSION}; upgrade the older one"
    )]
    Version {
        /// The peer's.
        theirs: u32,
    },
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    version: u32,
    message: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Incoming<T> {
    message: T,
}

/// The bytes of a request.
///
/// # Errors
/// `TooLarge` above [`MAX_REQUEST_BYTES`].
pub fn encode_request(request: &Request) -> Result<Vec<u8>, CodecError> {
    encode(request, MAX_REQUEST_BYTES)
}

/// The bytes of a response.
///
/// # Errors
/// `TooLarge` above [`MAX_RESPONSE_BYTES`].
pub fn encode_response(response: &Response) -> Result<Vec<u8>, CodecError> {
    encode(response, MAX_RESPONSE_BYTES)
}

fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; PREFIX_BYTES];
    serde_json::to_writer(&mut bytes, &Outgoing { version: PROTOCOL_VERSION, message })?;
    let len = bytes.len() - PREFIX_BYTES;
    match u32::try_from(len) {
        Ok(prefix) if len <= max => bytes[..PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes()),
        _ => return Err(CodecError::TooLarge { len, max }),
    }
    Ok(bytes)
}

/// Collects bytes as they arrive and yields whole messages.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    max: usize,
}

impl Decoder {
    /// For a daemon: messages up to [`MAX_REQUEST_BYTES`].
    #[must_use]
    pub fn for_requests() -> Self {
        Self { bytes: Vec::new(), max: MAX_REQUEST_BYTES }
    }

    /// For a client: messages up to [`MAX_RESPONSE_BYTES`].
    #[must_use]
    pub fn for_responses() -> Self {
        Self { bytes: Vec::new(), max: MAX_RESPONSE_BYTES }
    }

    /// Adds what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// True between messages: the peer may close now without losing one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of messages that have not come out yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The next request, once all of it is there.
    ///
    /// # Errors
    /// `CodecError`, after which the stream cannot be read further.
    pub fn next_request(&mut self) -> Result<Option<Request>, CodecError> {
        self.next()
    }

    /// The next response, once all of it is there.
    ///
    /// # Errors
    /// `CodecError`, after which the stream cannot be read further.
    pub fn next_response(&mut self) -> Result<Option<Response>, CodecError> {
        self.next()
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CodecError> {
        let Some((&prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(prefix) as usize;
        if len > self.max {
            return Err(CodecError::TooLarge { len, max: self.max });
        }
        let Some(json) = rest.get(..len) else { return Ok(None) };
        // The version first and alone: another version's messages need not parse as ours.
        let theirs = serde_json::from_slice::<Version>(json)?.version;
        if theirs != PROTOCOL_VERSION {
            return Err(CodecError::Version { theirs });
        }
        let message = serde_json::from_slice::<Incoming<T>>(json)?.message;
        self.bytes.drain(..PREFIX_BYTES + len);
        // A long message's memory is not kept for the short ones that follow.
        self.bytes.shrink_to(KEPT_BYTES.max(self.bytes.len()));
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::{CodecError, Decoder, MAX_REQUEST_BYTES, encode_request, encode_response};
    use crate::{
        AttachmentId, Encapsulate, Encapsulation, ErrorKind, ErrorReply, Mac, PeerSpec, PeerSync,
        Reply, Request, Source,
    };

    fn detach() -> Request {
        Request::Detach(AttachmentId { container_id: "c1".into(), ifname: "eth0".into() })
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let mut bytes = encode_request(&detach()).expect("small");
        bytes.extend(encode_request(&Request::Status).expect("small"));
        let mut decoder = Decoder::for_requests();
        let mut seen = Vec::new();
        for byte in bytes {
            decoder.feed(&[byte]);
            seen.extend(decoder.next_request().expect("ours"));
        }
        assert_eq!(seen, [detach(), Request::Status]);
        assert!(decoder.is_empty());
    }

    #[test]
    fn responses_carry_errors_and_replies() {
        for response in [
            Ok(Reply::Done),
            Err(ErrorReply { kind: ErrorKind::Exhausted, message: "no address is left".into() }),
        ] {
            let mut decoder = Decoder::for_responses();
            decoder.feed(&encode_response(&response).expect("small"));
            assert_eq!(decoder.next_response().expect("ours"), Some(response));
        }
    }

    #[test]
    fn a_hostile_length_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::for_requests();
        decoder.feed(&u32::MAX.to_be_bytes());
        assert!(matches!(
            decoder.next_request(),
            Err(CodecError::TooLarge { len: 0xffff_ffff, max: MAX_REQUEST_BYTES })
        ));
    }

    #[test]
    fn all_peers_of_a_large_cluster_fit() {
        let peer = |number: u32| PeerSpec {
            name: format!("{:a<57}{number:06}", "node-"),
            address: Ipv4Addr::from_bits(0xcb00_7100 + number).into(),
            prefixes: ["255.255.255.0/24", "fd00:ffff:ffff:ffff::/64"]
                .map(|text| text.parse().expect("a prefix"))
                .into(),
            encapsulation: Some(Encapsulation::Direct),
            encapsulate: Some(Encapsulate::CrossSubnet),
            vtep_mac: Some(Mac([0xfe; 6])),
        };
        let request = Request::SyncPeers(PeerSync {
            source: Source::Kubernetes,
            complete: true,
            peers: (0..10_000).map(peer).collect(),
            gone: Vec::new(),
        });
        let mut decoder = Decoder::for_requests();
        decoder.feed(&encode_request(&request).expect("it fits"));
        assert_eq!(decoder.next_request().expect("ours"), Some(request));
        assert!(decoder.bytes.capacity() <= super::KEPT_BYTES);
    }

    #[test]
    fn another_version_is_named() {
        let json = br#"{"version": 2, "message": {"request": "from-the-future"}}"#;
        let mut decoder = Decoder::for_requests();
        decoder.feed(&(json.len() as u32).to_be_bytes());
        decoder.feed(json);
        assert!(matches!(decoder.next_request(), Err(CodecError::Version { theirs: 2 })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut decoder = Decoder::for_requests();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_request() {}
        }
    }
}

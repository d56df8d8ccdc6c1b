//! One HTTP request and its response.
//!
//! Enters: a stream. Leaves: the response on it, after which it is closed. Only `GET /metrics` has an answer;
//! requests have no body.

use std::time::{Duration, Instant};

/// Bytes of a request at most: Prometheus sends some 400.
const MAX_REQUEST: usize = 8 * 1024;
/// Header lines of a request at most.
const MAX_HEADERS: usize = 64;
/// A request is whole after so long, and its response taken, however slowly their bytes go.
const MAX_DURATION: Duration = Duration::from_secs(4);
/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    AnotherPath,
    AnotherMethod,
    /// It is no HTTP request of this size.
    Nonsense,
}

/// Reads a request and answers it; `metrics` is called if they are asked for, and has none if the daemon
/// does not answer in time.
pub(super) fn serve(
    stream: &mut dyn super::listener::Stream,
    metrics: impl Fn() -> Option<String>,
) {
    let Some(asked) = read(stream) else { return };
    let (status, body) = match asked {
        Asked::Metrics => match metrics() {
            Some(text) => ("200 OK", text),
            None => ("503 Service Unavailable", "the daemon is busy\n".into()),
        },
        Asked::AnotherPath => ("404 Not Found", "metrics are at /metrics\n".into()),
        Asked::AnotherMethod => ("405 Method Not Allowed", "GET is allowed\n".into()),
        Asked::Nonsense => ("400 Bad Request", "this is no request for metrics\n".into()),
    };
    let len = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    );
    write(stream, response.as_bytes());
}

/// What a client does not take in time is lost.
fn write(stream: &mut dyn super::listener::Stream, mut bytes: &[u8]) {
    let until = Instant::now() + MAX_DURATION;
    while !bytes.is_empty() && Instant::now() < until {
        match stream.write(bytes) {
            Ok(count @ 1..) => bytes = bytes.get(count..).unwrap_or_default(),
            Ok(0) | Err(_) => return,
        }
    }
}

/// `None` if the client went, or took too long.
fn read(stream: &mut dyn super::listener::Stream) -> Option<Asked> {
    let until = Instant::now() + MAX_DURATION;
    let mut bytes = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        if let Some(asked) = parse(&bytes) {
            return Some(asked);
        }
        if Instant::now() >= until {
            return None;
        }
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => bytes.extend_from_slice(chunk.get(..count)?),
            Ok(0) | Err(_) => return None,
        }
    }
}

/// `None` if it is not whole.
fn parse(bytes: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(_) => return Some(Asked::Nonsense),
    }
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    Some(match (request.method, path) {
        (Some("GET"), "/metrics") => Asked::Metrics,
        (Some("GET"), _) => Asked::AnotherPath,
        _ => Asked::AnotherMethod,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Write};

    use super::{Asked, MAX_REQUEST, parse, serve};

    /// A client that sends this and takes what comes.
    struct Peer(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Peer {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            // One byte at a time.
            let len = into.len().min(1);
            self.0.read(&mut into[..len])
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn answer(request: &str, metrics: Option<&str>) -> String {
        let mut peer = Peer(Cursor::new(request.as_bytes().to_vec()), Vec::new());
        serve(&mut peer, || metrics.map(str::to_owned));
        String::from_utf8(peer.1).expect("text")
    }

    #[test]
    fn metrics_are_answered_and_nothing_else() {
        let whole = answer("GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n", Some("a 1\n"));
        assert_eq!(
            whole,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: 4\r\nConnection: close\r\n\r\na 1\n"
        );
        for (request, status) in [
            ("GET /metrics?x=y HTTP/1.0\r\n\r\n", "200"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
            ("\u{1}\r\n\r\n", "400"),
        ] {
            let answer = answer(request, Some(""));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        let busy = answer("GET /metrics HTTP/1.1\r\n\r\n", None);
        assert!(busy.starts_with("HTTP/1.1 503 "), "{busy}");
    }

    #[test]
    fn one_that_goes_in_the_middle_has_no_answer() {
        assert_eq!(answer("GET /metrics HT", Some("")), "");
    }

    #[test]
    fn a_request_without_end_is_none() {
        let mut request = b"GET /metrics HTTP/1.1\r\nA: ".to_vec();
        assert_eq!(parse(&request), None);
        request.resize(MAX_REQUEST, b'x');
        assert_eq!(parse(&request), Some(Asked::Nonsense));
        let many = "A: b\r\n".repeat(100);
        let request = format!("GET /metrics HTTP/1.1\r\n{many}\r\n");
        assert_eq!(parse(request.as_bytes()), Some(Asked::Nonsense));
    }
}

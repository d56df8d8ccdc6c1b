//! `drops --follow`: a line for each flow whose packets are dropped.
//!
//! Enters: samples of a second or so. Leaves: lines; what is said of the same flow and cause is one line,
//! with the packets that its samples stand for.

use std::net::SocketAddr;
use std::time::Duration;

use api::{DropSample, ExplainedEnd, Mac};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Columns are as wide as nearly all of their cells are.
const REASON_WIDTH: usize = 16;
const DIRECTION_WIDTH: usize = 3;

/// Samples, those of one flow together.
pub(crate) struct Fold<'a>(Vec<(&'a DropSample, u64)>);

impl<'a> Fold<'a> {
    /// Each flow where its first sample was.
    pub(crate) fn of(samples: &'a [DropSample]) -> Self {
        let mut flows: Vec<(&DropSample, u64)> = Vec::new();
        for sample in samples {
            let packets = u64::from(sample.packets);
            match flows.iter_mut().find(|(first, _)| is_same(first, sample)) {
                Some((_, all)) => *all += packets,
                None => flows.push((sample, packets)),
            }
        }
        Self(flows)
    }

    /// Without line ends. `span` is the time in which the samples were taken.
    pub(crate) fn lines(&self, span: Duration) -> Vec<String> {
        self.0.iter().map(|(sample, packets)| line(sample, *packets, span)).collect()
    }
}

/// They have the same flow, reason and cause.
fn is_same(a: &DropSample, b: &DropSample) -> bool {
    a.reason == b.reason
        && a.cause == b.cause
        && a.port == b.port
        && a.protocol == b.protocol
        && a.detail == b.detail
        && a.direction == b.direction
        && (&a.source, &a.destination) == (&b.source, &b.destination)
        && (a.source_mac, a.destination_mac) == (b.source_mac, b.destination_mac)
}

fn line(sample: &DropSample, packets: u64, span: Duration) -> String {
    let DropSample { reason, cause, direction, explanation, .. } = sample;
    let why = cause.as_deref().unwrap_or(explanation);
    let times = match packets {
        0 | 1 => String::new(),
        // Those of a span that is shorter than planned are no fewer.
        packets => {
            let rate = packets as f64 / span.as_secs_f64().max(1.0);
            format!("  x{:.0}/s", rate.max(1.0))
        }
    };
    let direction = direction.as_deref().unwrap_or("-");
    format!(
        "{}  {reason:<REASON_WIDTH$}  {direction:<DIRECTION_WIDTH$}  {}  {why}{times}",
        time(sample.time_ms),
        flow(sample)
    )
}

/// Of the local day, to the millisecond.
fn time(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let local = moment.map(|moment| moment.to_zoned(TimeZone::system()));
    local.map_or_else(|| "-".to_owned(), |local| local.strftime("%H:%M:%S%.3f").to_string())
}

fn flow(sample: &DropSample) -> String {
    let DropSample { port, source, destination, source_mac, destination_mac, protocol, .. } =
        sample;
    let mac = |mac: &Option<Mac>| mac.map(|mac| mac.to_string());
    let ends = match (source, destination) {
        (Some(source), Some(destination)) => Some([end(source), end(destination)]),
        _ => mac(source_mac).zip(mac(destination_mac)).map(|(from, to)| [from, to]),
    };
    // What is known of a frame that is gone.
    let ends = ends.map_or_else(|| format!("from {port}"), |[from, to]| format!("{from} > {to}"));
    let detail = sample.detail.as_deref().map_or_else(String::new, |detail| format!(" {detail}"));
    format!("{ends} {protocol}{detail}")
}

/// `198.18.1.2:80 (shop/web-0)`.
fn end(end: &ExplainedEnd) -> String {
    let address = match end.port {
        None => end.address.to_string(),
        Some(port) => SocketAddr::new(end.address, port).to_string(),
    };
    match &end.name {
        Some(name) => format!("{address} ({name})"),
        None => address,
    }
}

/// A sample as one line of JSON.
pub(crate) fn followed_json(sample: &DropSample) -> String {
    serde_json::to_string(sample).expect("plain structs with string keys")
}

/// The last line. The counters know no pods that packets are for, so that what they counted is of all ports.
pub(crate) fn summary(lines: u64, counted: u64, most: u32, reason: Option<&str>) -> String {
    let (lines, counted) = (grouped(lines), grouped(counted));
    let of = reason.map_or_else(String::new, |reason| format!(" as {reason}"));
    let limit = format!("-- at most {most}/s a reason and worker");
    format!("{limit}: {lines} shown; {counted} dropped of all ports{of}")
}

/// With commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let all: Vec<_> = (!head.is_empty()).then(|| head.into()).into_iter().chain(groups).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::{DropSample, ExplainedEnd, Mac};

    use super::{Fold, followed_json, grouped, summary};

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(source_port: u16, packets: u32) -> DropSample {
        let end = |name: &str, address: &str, port| {
            let address = address.parse().expect("an address");
            Some(ExplainedEnd { name: Some(name.to_owned()), address, port: Some(port) })
        };
        DropSample {
            time_ms: 1_700_000_001_204,
            reason: "policy-denied".to_owned(),
            explanation: "No policy allows it.".to_owned(),
            cause: Some("shop/db-0 isolated by shop/db-ingress".to_owned()),
            port: "shop/web-0".to_owned(),
            direction: Some("in".to_owned()),
            source: end("shop/web-0", "198.18.1.2", source_port),
            destination: end("shop/db-0", "fd00:18:1::9", 5432),
            source_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            destination_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            protocol: "TCP".to_owned(),
            detail: Some("S".to_owned()),
            bytes: 74,
            packets,
        }
    }

    /// Without their times, which depend on where the test runs.
    fn lines(samples: &[DropSample], span: Duration) -> Vec<String> {
        let lines = Fold::of(samples).lines(span).into_iter();
        lines
            .map(|line| {
                let (time, rest) = line.split_once("  ").expect("columns");
                assert_eq!((time.len(), &time[8..]), (12, ".204"), "{line}");
                rest.to_owned()
            })
            .collect()
    }

    #[test]
    fn a_flow_is_one_line_with_its_rate() {
        let mut later = sample(40_112, 300);
        (later.time_ms, later.bytes) = (1_700_000_001_304, 60);
        let samples = [sample(40_112, 1), sample(40_113, 1), later];
        let denied = "policy-denied     in   198.18.1.2:40112 (shop/web-0) > [fd00:18:1::9]:5432 \
                      (shop/db-0) TCP S  shop/db-0 isolated by shop/db-ingress";
        let other = denied.replace("40112", "40113");
        assert_eq!(lines(&samples, SECOND), [format!("{denied}  x301/s"), other.clone()]);
        assert_eq!(lines(&samples, 4 * SECOND), [format!("{denied}  x75/s"), other]);
    }

    #[test]
    fn a_frame_without_addresses_is_told_by_what_is_known() {
        let plain = DropSample {
            reason: "same-port".to_owned(),
            cause: None,
            direction: None,
            source: None,
            destination: None,
            protocol: "ethertype 0x88b5".to_owned(),
            detail: None,
            ..sample(1, 1)
        };
        let gone = DropSample {
            source_mac: None,
            destination_mac: None,
            protocol: "gone".to_owned(),
            ..plain.clone()
        };
        assert_eq!(
            lines(&[plain, gone], SECOND),
            [
                "same-port         -    02:00:00:00:00:01 > 02:00:00:00:00:02 ethertype 0x88b5  \
                 No policy allows it.",
                "same-port         -    from shop/web-0 gone  No policy allows it.",
            ]
        );
    }

    #[test]
    fn the_last_line_says_how_many_were_not_shown() {
        assert_eq!(
            summary(2, 1204, 10, None),
            "-- at most 10/s a reason and worker: 2 shown; 1,204 dropped of all ports"
        );
        assert!(
            summary(2, 3, 10, Some("no-route")).ends_with("3 dropped of all ports as no-route")
        );
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn json_is_a_line_that_reads_back() {
        let text = followed_json(&sample(1, 3));
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<DropSample>(&text).expect("JSON"), sample(1, 3));
    }
}

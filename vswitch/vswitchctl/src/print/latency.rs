//! `latency`.

use super::table::{Table, line};
use crate::latency::{LatencySummary, Percentiles};

pub(crate) fn text(summary: &LatencySummary) -> String {
    let mut text = String::new();
    if summary.paths.is_empty() {
        line(&mut text, &format!("no packet has passed {}", span(summary)));
        return text;
    }
    text += &table("PATH", &summary.paths);
    if !summary.ports.is_empty() {
        text.push('\n');
        text += &table("FROM PORT", &summary.ports);
    }
    line(&mut text, "");
    line(
        &mut text,
        &format!(
            "from a worker's look at its queues until the kernel had the packet, {}",
            span(summary)
        ),
    );
    text
}

fn span(summary: &LatencySummary) -> String {
    if summary.since_start {
        format!("in the {:.0} s since the daemon's start", summary.seconds)
    } else {
        format!("in the last {:.1} s", summary.seconds)
    }
}

fn table(first: &str, rows: &[Percentiles]) -> String {
    let mut table = Table::new(&[
        first,
        "PACKETS",
        "TIMED",
        "P50 µs",
        "P90 µs",
        "P99 µs",
        "P99.9 µs",
        "MAX µs",
    ]);
    for row in rows {
        let times = [row.p50_us, row.p90_us, row.p99_us, row.p99_9_us, row.max_us].map(micros);
        let [p50, p90, p99, p99_9, max] = times;
        let (packets, timed) = (row.packets.to_string(), row.timed.to_string());
        table.row([row.name.clone(), packets, timed, p50, p90, p99, p99_9, max]);
    }
    table.print()
}

/// Two digits or three: a bucket has no more.
fn micros(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::latency::{LatencySummary, Percentiles};

    fn row(name: &str, max_us: f64) -> Percentiles {
        let name = name.into();
        let (p50_us, p90_us, p99_us, p99_9_us) = (3.07, 4.6, 12.03, 104.4);
        Percentiles { name, packets: 1234, timed: 99, p50_us, p90_us, p99_us, p99_9_us, max_us }
    }

    #[test]
    fn paths_and_ports_are_tables_of_their_own() {
        let paths = vec![row("pod-pod", 310.2)];
        let mut summary =
            LatencySummary { seconds: 10.04, since_start: false, paths, ports: Vec::new() };
        let footer = "\nfrom a worker's look at its queues until the kernel had the packet, in the last 10.0 s\n";
        assert_eq!(
            text(&summary),
            format!(
                "PATH     PACKETS  TIMED  P50 µs  P90 µs  P99 µs  P99.9 µs  MAX µs\n\
                 pod-pod  1234     99     3.1     4.6     12.0    104       310\n{footer}"
            )
        );
        summary.ports = vec![row("shop/db-0", 9.0)];
        let both = text(&summary);
        assert!(both.contains("\n\nFROM PORT  PACKETS  TIMED  P50"), "{both}");
        assert!(both.contains("\nshop/db-0  1234     99"), "{both}");
    }

    #[test]
    fn without_packets_it_says_so() {
        let (paths, ports) = (Vec::new(), Vec::new());
        let summary = LatencySummary { seconds: 81.7, since_start: true, paths, ports };
        assert_eq!(text(&summary), "no packet has passed in the 82 s since the daemon's start\n");
    }
}

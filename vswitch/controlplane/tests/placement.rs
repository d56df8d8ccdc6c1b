//! A simulated node with sixteen workers: how evenly pods' work lies on them when it has come to rest.
//!
//! No core of a machine runs here. The table of docs/workers.md is compared with what this computes;
//! `UPDATE_DOCS=1 cargo test -p controlplane --test placement` writes it.

use std::{env, fs};

use controlplane::balance::{Balance, PortWork, SECOND};
use dataplane::Millis;
use dataplane::tables::PortId;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/workers.md");
const BEGIN: &str = "<!-- simulated placement -->\n";
const END: &str = "<!-- end of it -->\n";

const WORKERS: usize = 16;
const PODS: u64 = 250;
/// All pods together keep so many of the sixteen cores busy.
const CORES: u64 = 8;
/// Long enough for a move each eight seconds to come to an end.
const SECONDS: u64 = 3600;

/// How pods differ: by the weight of each, of which it has its share of all work.
struct Spread {
    name: &'static str,
    weight: fn(u64) -> u64,
}

const SPREADS: [Spread; 4] = [
    Spread { name: "all alike", weight: |_| 1000 },
    Spread {
        name: "a tenth send ten times as much",
        weight: |pod| if pod % 10 == 0 { 10_000 } else { 1000 },
    },
    Spread {
        name: "Zipf: the n-th busiest sends a share of 1/n",
        weight: |pod| 1_000_000 / (pod + 1),
    },
    Spread {
        name: "sixteen send all, and came one after the other",
        weight: |pod| if pod % 16 == 0 && pod < 256 { 1000 } else { 0 },
    },
];

struct Outcome {
    mean: u64,
    largest: u64,
    before: u64,
    after: u64,
    moves: u64,
    seconds: u64,
}

/// Pods come one after the other and go to the worker with the fewest; then each sends what it sends.
fn simulate(spread: &Spread) -> Outcome {
    let weights: Vec<u64> = (0..PODS).map(spread.weight).collect();
    let sum: u64 = weights.iter().sum();
    let mut ports: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(pod, weight)| PortWork {
            port: PortId(pod as u16),
            worker: pod % WORKERS,
            nanos: weight * CORES * SECOND / sum,
        })
        .collect();
    let busiest = |ports: &[PortWork]| {
        let mut loads = [0; WORKERS];
        ports.iter().for_each(|port| loads[port.worker] += port.nanos);
        loads.into_iter().max().unwrap_or_default()
    };
    let (before, mut moves, mut seconds) = (busiest(&ports), 0, 0);
    let mut balance = Balance::default();
    for second in 1..=SECONDS {
        let Some(due) = balance.look(&[0; WORKERS], &ports, Millis(second * 1000)) else {
            continue;
        };
        let port = ports.iter_mut().find(|port| port.port == due.port).expect("a port of the node");
        port.worker = due.to;
        (moves, seconds) = (moves + 1, second);
    }
    let all: u64 = ports.iter().map(|port| port.nanos).sum();
    Outcome {
        mean: all / WORKERS as u64,
        largest: ports.iter().map(|port| port.nanos).max().unwrap_or_default(),
        before,
        after: busiest(&ports),
        moves,
        seconds,
    }
}

fn percent(nanos: u64) -> u64 {
    (nanos * 100 + SECOND / 2) / SECOND
}

fn table() -> String {
    let mut lines = vec![
        "| what pods send | mean of the workers, % of a core | largest pod | busiest worker by the number of pods | after moves | moves | the last after, s |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for spread in &SPREADS {
        let Outcome { mean, largest, before, after, moves, seconds } = simulate(spread);
        let [mean, largest, before, after] = [mean, largest, before, after].map(percent);
        lines.push(format!(
            "| {} | {mean} | {largest} | {before} | {after} | {moves} | {seconds} |",
            spread.name
        ));
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_page_has_what_the_simulation_computes() {
    let page = fs::read_to_string(PAGE).expect("docs/workers.md");
    let (head, rest) = page.split_once(BEGIN).expect("the page has the table's beginning");
    let (_, tail) = rest.split_once(END).expect("the page has the table's end");
    let written = format!("{head}{BEGIN}\n{}\n{END}{tail}", table());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &written).expect("docs/workers.md can be written");
    }
    let page = fs::read_to_string(PAGE).expect("docs/workers.md");
    assert_eq!(page, written, "UPDATE_DOCS=1 cargo test -p controlplane --test placement");
}

/// No worker has more than half a core beyond the mean, unless one pod alone takes more than that.
#[test]
fn no_worker_is_far_busier_than_it_must_be() {
    for spread in &SPREADS {
        let Outcome { mean, largest, after, .. } = simulate(spread);
        let must = mean.max(largest);
        assert!(after <= must + SECOND / 5, "{}: {after} of {must}", spread.name);
    }
}

//! Runs every case of `scenarios/*.walk`, and holds that each drop reason has one.

use std::collections::BTreeSet;
use std::path::Path;

use dataplane::DropReason;

use crate::scenario::{Run, parse, read_all};

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

#[test]
fn every_case_holds_and_every_drop_reason_has_one() {
    let mut failures = Vec::new();
    let mut reasons = BTreeSet::new();
    for file in read_all(&directory()) {
        for case in &file.cases {
            match Run::case(case) {
                Ok(run) => reasons.extend(run.reasons),
                Err(error) => failures.push(format!("{}:{error}", file.name)),
            }
        }
    }
    assert!(failures.is_empty(), "{} fail\n\n{}", failures.len(), failures.join("\n\n"));
    let missing: Vec<_> = DropReason::ALL.iter().filter(|one| !reasons.contains(one)).collect();
    assert!(missing.is_empty(), "no case drops for {missing:?}");
}

/// What a case must catch: each line here is wrong in one respect.
#[test]
fn a_wrong_expectation_fails() {
    const RIGHT: &str = "host\n\
        gateway 198.18.1.1\n\
        pod a 198.18.1.2\n\
        pod b 198.18.1.3\n\
        == Right\n\
        > pod-a eth pod-a > gateway / ip 198.18.1.2 > 198.18.1.3 / udp 1 > 2 / 4 bytes\n\
        < pod-b eth gateway > pod-b / ip 198.18.1.2 > 198.18.1.3 ttl 63 / udp 1 > 2 / 4 bytes\n\
        = pod-a rx +1, pod-b tx +1\n";
    let outcome = |text: &str| Run::case(&parse(text).expect("well-formed")[0]).map(|_| ());
    assert_eq!(outcome(RIGHT), Ok(()));
    for (right, wrong) in [
        ("ttl 63", "ttl 62"),
        ("< pod-b eth gateway", "< pod-a eth gateway"),
        ("pod-b tx +1", "pod-b tx +2"),
        (", pod-b tx +1", ""),
        ("= pod-a rx +1", "= made +1, pod-a rx +1"),
        ("ttl 63 / udp 1 > 2 / 4 bytes", "ttl 63 / udp 1 > 2 badsum / 4 bytes"),
        ("ttl 63 / udp 1 > 2 / 4 bytes", "ttl 63 / udp 1 > 2 / 5 bytes"),
        ("ttl 63 / udp 1 > 2", "ttl 63 / udp $x > 2"),
        ("> pod-a eth", "> pod-a x2 eth"),
        ("ttl 63", "ttl 63 typing-error"),
    ] {
        assert!(RIGHT.contains(right), "{right}");
        assert!(outcome(&RIGHT.replace(right, wrong)).is_err(), "`{wrong}` went unnoticed");
    }
    let silent: String =
        RIGHT.lines().filter(|line| !line.starts_with('<')).map(|l| format!("{l}\n")).collect();
    assert!(outcome(&silent).is_err(), "a packet that nobody expected went unnoticed");
}

//! The policy of iptables-legacy's chain FORWARD, as that program sets it.

use std::fs;
use std::process::Command;

use netio::xtables::forward_drops;

use crate::common::{Namespace, skip};

#[test]
fn a_policy_of_iptables_legacy_is_seen_and_looking_makes_no_table() {
    const TEST: &str = "a_policy_of_iptables_legacy_is_seen_and_looking_makes_no_table";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.run(|| {
        for (program, names, is_v4) in [
            ("iptables-legacy", "/proc/thread-self/net/ip_tables_names", true),
            ("ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names", false),
        ] {
            let names = || fs::read_to_string(names).unwrap_or_default();
            let before = names();
            assert!(!forward_drops(is_v4).expect("an answer"), "{program}");
            assert_eq!(names(), before, "looking makes no table");
            let set = |arguments: &str| {
                let output = Command::new(program).args(arguments.split(' ')).output();
                output.is_ok_and(|output| output.status.success())
            };
            if !set("-P FORWARD DROP") {
                skip(TEST, &format!("{program} or the kernel's tables for it are missing"));
                continue;
            }
            assert!(forward_drops(is_v4).expect("an answer"), "{program}");
            assert!(set("-A FORWARD -j ACCEPT") && forward_drops(is_v4).expect("an answer"));
            assert!(set("-P FORWARD ACCEPT") && set("-A FORWARD -j DROP"));
            assert!(!forward_drops(is_v4).expect("an answer"), "a rule is no policy");
        }
    });
}

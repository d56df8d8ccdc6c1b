use std::collections::BTreeSet;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use controlplane::config::SeccompSetting;
use libc::SIGSYS;
use rustix::net::{AddressFamily, SocketType, socket};

use super::{Sandbox, ThreadKind, arguments};

const KINDS: [ThreadKind; 6] = [
    ThreadKind::Control,
    ThreadKind::Rules,
    ThreadKind::Worker,
    ThreadKind::Closer,
    ThreadKind::Journal,
    ThreadKind::Metrics,
];

/// Is set in the environment of a test that runs itself again, to be ended.
const AGAIN: &str = "VSWITCH_SANDBOX_TEST";

#[test]
fn each_list_is_sorted_and_has_reasons() {
    for list in KINDS.into_iter().flat_map(ThreadKind::lists) {
        assert!(list.is_sorted_by(|one, next| one.name < next.name), "{list:?}");
        for call in list {
            assert!(!call.reason.trim().is_empty(), "{call:?}");
        }
    }
}

#[test]
fn a_thread_has_few_calls() {
    let count = |kind: ThreadKind| {
        let numbers = kind.lists().into_iter().flatten().map(|call| call.number);
        numbers.collect::<BTreeSet<_>>().len()
    };
    for kind in KINDS {
        // The control thread opens an uplink again; that of the rules runs a program.
        let most = if matches!(kind, ThreadKind::Control | ThreadKind::Rules) { 110 } else { 50 };
        assert!(count(kind) <= most, "{kind:?}: {}", count(kind));
    }
}

/// The kernel keeps no bitmap of calls with rules, and runs the whole filter for each.
#[test]
fn calls_of_a_packets_way_have_no_rules() {
    let calls = ThreadKind::Worker.lists().into_iter().flatten();
    let ruled = calls.filter(|call| {
        let rules = arguments::allowed(call.number, ThreadKind::Worker).expect("they are right");
        !rules.is_empty()
    });
    let ruled: Vec<_> = ruled.map(|call| call.name).collect();
    assert_eq!(ruled, ["SYS_mmap", "SYS_mprotect", "SYS_tgkill"]);
}

#[test]
fn a_worker_that_makes_a_socket_ends_the_process() {
    let ended = again("a_worker_that_makes_a_socket_ends_the_process", || {
        confined(SeccompSetting::Kill, ThreadKind::Worker, make_socket);
    });
    assert_eq!(ended, Some(SIGSYS));
}

#[test]
fn no_thread_but_that_of_the_rules_may_execute_a_program() {
    let name = "no_thread_but_that_of_the_rules_may_execute_a_program";
    for (index, kind) in KINDS.into_iter().enumerate() {
        if let Ok(wanted) = env::var("VSWITCH_SANDBOX_KIND")
            && wanted != index.to_string()
        {
            continue;
        }
        let execute = || {
            Command::new("true").status().expect("every Linux has true");
        };
        let ended = again_as(name, index, || confined(SeccompSetting::Kill, kind, execute));
        let expected = (kind != ThreadKind::Rules).then_some(SIGSYS);
        assert_eq!(ended, expected, "{kind:?}");
    }
}

#[test]
fn a_panic_in_a_confined_thread_ends_that_thread_alone() {
    let ended = again("a_panic_in_a_confined_thread_ends_that_thread_alone", || {
        for kind in KINDS {
            let confine = Sandbox(SeccompSetting::Kill).confining(kind);
            let thread = thread::spawn(move || {
                confine().expect("the kernel takes it");
                panic!("on purpose");
            });
            thread.join().expect_err("it panicked");
        }
    });
    assert_eq!(ended, None);
}

#[test]
fn what_is_logged_is_done() {
    confined(SeccompSetting::Log, ThreadKind::Worker, make_socket);
    confined(SeccompSetting::Off, ThreadKind::Worker, make_socket);
}

fn make_socket() {
    socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("any process may make one");
}

fn confined(setting: SeccompSetting, kind: ThreadKind, act: impl FnOnce() + Send + 'static) {
    let confine = Sandbox(setting).confining(kind);
    let thread = thread::spawn(move || {
        confine().expect("the kernel takes it");
        act();
    });
    thread.join().expect("it returns");
}

/// The signal by which a process ends that does this.
fn again(test: &str, act: impl FnOnce()) -> Option<i32> {
    again_as(test, 0, act)
}

/// As `again`; `index` is what the other process finds in its environment.
fn again_as(test: &str, index: usize, act: impl FnOnce()) -> Option<i32> {
    if env::var_os(AGAIN).is_some() {
        act();
        std::process::exit(0);
    }
    let output = Command::new(env::current_exe().expect("a test has a binary"))
        .args(["--exact", &format!("sandbox::tests::{test}")])
        .env(AGAIN, "1")
        .env("VSWITCH_SANDBOX_KIND", index.to_string())
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("it can be executed");
    let signal = output.status.signal();
    assert!(
        signal.is_some() || output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    signal
}

//! The CNI plugin's stdin: any bytes, for any command, with any CNI_ARGS, are a call or an error.
//!
//! The first byte chooses the command; up to the next NUL follow CNI_ARGS, then stdin.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use vswitch_cni::{Call, Command, Wanted};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&command, rest)) = input.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (args, stdin) = match (parts.next(), parts.next()) {
        (Some(args), Some(stdin)) => (args, stdin),
        (Some(stdin), None) => (&[][..], stdin),
        _ => return,
    };
    let command = match command % 6 {
        0 => Command::Add,
        1 => Command::Del,
        2 => Command::Check,
        3 => Command::Status,
        4 => Command::Gc,
        _ => Command::Version,
    };
    let env = |name: &str| {
        Some(match name {
            "CNI_CONTAINERID" => "c1".into(),
            "CNI_IFNAME" => "eth0".into(),
            "CNI_NETNS" => "/run/netns/pod".into(),
            "CNI_PATH" => "/opt/cni/bin".into(),
            "CNI_ARGS" => OsString::from_vec(args.to_vec()),
            _ => return None,
        })
    };
    match Call::new(command, env, stdin) {
        Ok(call) => {
            assert_eq!(call.stdin, stdin, "a delegate gets what came");
            assert!(!call.conf.name.is_empty(), "a network has a name");
            if let Err(error) = Wanted::new(&call.conf, &call.env.args) {
                assert!(!error.to_string().is_empty(), "an error says what is wrong");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
    }
});

//! A journal: any bytes are read; what is read and written anew is read again; damage to a line costs that
//! line, and no other is changed, made up or out of its place.
//!
//! The first byte chooses. 0: the rest is the file. 1 and above: each line of the rest is the JSON of a
//! transaction, which gets its sum and its length; the four bytes behind the first one choose a place of the file
//! that comes of them, and what damages it.

#![no_main]

use std::hash::Hasher;

use controlplane::config::Config;
use controlplane::model::{Edit, Model};
use journal_format::{Content, read, snapshot};

/// A node whose journal this might be.
const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/24", "fd00:18:1::/64"]
cluster_prefixes = ["198.18.0.0/16", "fd00:18::/32"]
"#;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    match input {
        [0, file @ ..] => drop(readable(file)),
        [_, a, b, how, with, texts @ ..] => {
            let place = usize::from(u16::from_le_bytes([*a, *b]));
            damaged(texts, place, *how, *with);
        }
        _ => {}
    }
});

/// Reads a file, writes it anew, and reads that.
fn readable(file: &[u8]) -> Option<Content> {
    let content = read(file).ok()?;
    assert!(content.edits.len() <= file.len() && content.damage.len() <= file.len() + 1);
    assert!(content.torn_at.is_none_or(|at| at < file.len()), "the torn end begins in the file");
    assert!(content.lost_behind.is_none_or(|edits| edits <= content.edits.len()));
    content.damage.iter().for_each(|damage| assert!(!damage.to_string().is_empty()));

    let written = snapshot(&content.edits).expect("it was read of JSON");
    let again = read(&written).expect("of this version");
    assert_eq!(again.edits, content.edits, "what is written anew is read as it was");
    assert_eq!((again.damage.len(), again.torn_at, again.is_current), (0, None, true));
    Some(content)
}

/// A journal of these transactions, with a byte of it changed or all behind it lost.
fn damaged(texts: &[u8], place: usize, how: u8, with: u8) {
    let mut file = b"vswitch-journal 2\n".to_vec();
    let mut transactions: Vec<Vec<Edit>> = Vec::new();
    for text in [&b"[]"[..]].into_iter().chain(texts.split(|byte| *byte == b'\n')) {
        let Ok(edits) = serde_json::from_slice(text) else { continue };
        transactions.push(edits);
        file.extend(format!("{:016x} {} ", sum(text), text.len()).into_bytes());
        file.extend(text);
        file.push(b'\n');
    }
    let whole = readable(&file).expect("of this version");
    assert_eq!(whole.lines, transactions.len(), "every line is read");
    assert_eq!(whole.edits, transactions.concat());
    restorable(&whole.edits);

    let at = place % file.len();
    if how & 1 == 1 {
        file.truncate(at);
        // The first line has the version.
        let before = file.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
        let left = readable(&file).expect("of this version").edits;
        let is_beginning = |len| left == transactions[..len].concat();
        assert!(
            (before..=transactions.len()).any(is_beginning),
            "the {before} lines before byte {at} are not what is left: {left:?}"
        );
    } else if with != 0 {
        file[at] ^= with;
        let left = readable(&file).expect("no single byte makes a newer version of it").edits;
        let lacks_only = |one: usize| {
            let others = [&transactions[..one], &transactions[one + 1..]].concat();
            left == others.concat()
        };
        assert!(
            left == whole.edits || (0..transactions.len()).any(lacks_only),
            "byte {at} costs more than its line: {left:?}"
        );
    }
}

/// Whatever edits a journal has make a model, and the snapshot of that makes the same one.
fn restorable(edits: &[Edit]) {
    let config = Config::parse("vswitch.toml", CONFIG).expect("valid");
    let first = Model::restored(&config, edits).snapshot();
    let second = Model::restored(&config, &first).snapshot();
    assert_eq!(first, second, "a snapshot makes what it was made of");
}

/// FNV-1a over the version and the text, as `journal-format` says.
fn sum(text: &[u8]) -> u64 {
    let mut hash = api::Fnv::default();
    hash.write(&2_u64.to_le_bytes());
    hash.write(text);
    hash.finish()
}

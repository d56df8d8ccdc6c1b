//! Damage of every kind against the text of a journal.

use controlplane::model::Edit;
use proptest::prelude::*;

use super::{Content, Damage, MAGIC, Newer, VERSION, beginning, line, read, sum};

fn edit(number: u8) -> Edit {
    Edit::Fdb {
        bridge: "default".into(),
        mac: api::Mac([2, 0, 0, 0, 0, number]),
        vtep: "198.51.100.12".parse().expect("an address"),
    }
}

/// A journal of so many transactions of one edit.
fn journal(lines: u8) -> Vec<u8> {
    let mut bytes = beginning().expect("plain data");
    for number in 1..=lines {
        bytes.extend(line(&[edit(number)]).expect("plain data"));
    }
    bytes
}

/// As version 1 wrote it.
fn journal_of_version_1(lines: u8) -> Vec<u8> {
    let mut bytes = b"vswitch-journal 1\n".to_vec();
    for number in 1..=lines {
        let json = serde_json::to_vec(&[edit(number)]).expect("plain data");
        let sum = sum(u64::from(number - 1), &json);
        bytes.extend(format!("{sum:016x} ").into_bytes());
        bytes.extend(json);
        bytes.push(b'\n');
    }
    bytes
}

fn edits(lines: u8) -> Vec<Edit> {
    (1..=lines).map(edit).collect()
}

/// How many of the transactions are lost; none is changed, made up or out of its place.
fn lost(content: &Content, lines: u8) -> usize {
    let mut left = content.edits.iter().peekable();
    for number in 1..=lines {
        left.next_if(|found| **found == edit(number));
    }
    assert_eq!(left.next(), None, "{content:?}");
    usize::from(lines) - content.edits.len()
}

#[test]
fn what_is_written_is_read() {
    let content = read(&journal(3)).expect("ours");
    assert_eq!(content.edits, edits(3));
    assert_eq!((content.lines, content.is_current), (4, true));
    assert_eq!((content.damage, content.torn_at), (Vec::new(), None));
}

#[test]
fn cut_anywhere_it_loses_the_torn_line_alone() {
    let bytes = journal(5);
    let ends: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    for cut in 0..bytes.len() {
        let content = read(&bytes[..cut]).expect("ours");
        // A line that lacks nothing but its end is whole; the first two are the file's beginning.
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(content.edits, edits(whole.saturating_sub(2) as u8), "cut at {cut}");
        if whole < 2 {
            assert_eq!(content.damage, [Damage::Everything], "cut at {cut}");
            continue;
        }
        assert_eq!(content.damage, [], "cut at {cut}");
        let torn = (cut > ends[whole - 1] + 1).then_some(ends[whole - 1] + 1);
        assert_eq!(content.torn_at, torn, "cut at {cut}");
    }
}

#[test]
fn any_flipped_bit_costs_one_line_at_most_and_is_noticed() {
    let bytes = journal(5);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let content = read(&flipped).expect("a flipped version is no newer one");
            let lost = lost(&content, 5);
            assert!(lost <= 1, "byte {at}, bit {bit}: {lost} lost");
            assert_eq!(content.damage.len(), 1, "byte {at}, bit {bit}: {content:?}");
            if bytes[at] == b'\n' {
                assert_eq!(lost, 0, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_line_that_ends_nowhere_and_the_damaged_one_behind_it_cost_one() {
    let mut bytes = journal(3);
    let end = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
    (bytes[end], bytes[end + 1]) = (b'?', b'?');
    let content = read(&bytes).expect("ours");
    assert_eq!((content.edits, content.damage), (edits(2), vec![Damage::Line(5)]));
}

#[test]
fn text_within_a_damaged_line_does_not_pass_for_one() {
    let json = serde_json::to_string(&[edit(9)]).expect("plain data");
    // As it stands within the text of another line.
    let escaped = json.replace('"', "\\\"");
    let inner =
        format!("{:016x} {} {json}", sum(VERSION.into(), escaped.as_bytes()), escaped.len());
    let sly = Edit::NoFdb { bridge: inner, mac: api::Mac([2; 6]) };
    let mut bytes = beginning().expect("plain data");
    let start = bytes.len();
    bytes.extend(line(&[sly]).expect("plain data"));
    bytes.extend(line(&[edit(1)]).expect("plain data"));
    bytes[start] ^= 1;
    let content = read(&bytes).expect("ours");
    assert_eq!((content.edits, content.damage), (edits(1), vec![Damage::Line(3)]));
}

#[test]
fn version_1_is_read() {
    let content = read(&journal_of_version_1(3)).expect("ours");
    assert_eq!((&content.edits[..], content.is_current), (&edits(3)[..], false));
    assert_eq!((content.damage, content.torn_at), (Vec::new(), None));
    // Without a line, with a torn one, and with a version that is damaged to a newer one's.
    let content = read(b"vswitch-journal 1\n").expect("ours");
    assert_eq!(content, Content::default());
    let bytes = journal_of_version_1(3);
    let content = read(&bytes[..bytes.len() - 1]).expect("ours");
    assert_eq!((&content.edits[..], content.damage.len()), (&edits(2)[..], 0));
    assert!(content.torn_at.is_some());
    let mut bytes = bytes;
    bytes[MAGIC.len()] = b'3';
    let content = read(&bytes).expect("ours");
    assert_eq!((content.edits, content.damage), (edits(3), vec![Damage::Version]));
}

#[test]
fn a_newer_version_is_known_even_if_its_lines_are_like_ours() {
    assert_eq!(read(b"vswitch-journal 3\nwhatever\n"), Err(Newer(3)));
    let json = b"[]";
    let line = format!("vswitch-journal 3\n{:016x} 2 []\n", sum(3, json));
    assert_eq!(read(line.as_bytes()), Err(Newer(3)));
}

#[test]
fn what_was_never_a_journal_is_damage() {
    for bytes in [&b""[..], b"\n", b"\0\0\0", b"vswitch-journal\n", b"vswitch-journal 2\n"] {
        let content = read(bytes).expect("no newer one");
        assert_eq!(content.damage, [Damage::Everything], "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Bit flips anywhere, with a third of them at or to a line's end.
    #[test]
    fn a_flip_costs_one_line_at_most(place in any::<prop::sample::Index>(), bit in 0..8u8, kind in 0..6) {
        const LINES: u8 = 20;
        let mut bytes = journal(LINES);
        let at = match kind {
            0 => {
                let ends: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
                *place.get(&ends)
            }
            _ => place.index(bytes.len()),
        };
        if kind == 1 {
            bytes[at] = b'\n';
        } else {
            bytes[at] ^= 1 << bit;
        }
        let content = read(&bytes).expect("a flipped version is no newer one");
        prop_assert!(lost(&content, LINES) <= 1);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A hole or a stretch of anything costs what it touches, and the line behind it is found.
    #[test]
    fn a_stretch_of_damage_costs_what_it_touches(
        place in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        const LINES: u8 = 20;
        let mut bytes = journal(LINES);
        let at = place.index(bytes.len());
        let to = (at + garbage.len()).min(bytes.len());
        let touched = bytes[at..to].iter().filter(|byte| **byte == b'\n').count() + 1;
        bytes[at..to].copy_from_slice(&garbage[..to - at]);
        let content = read(&bytes).expect("no newer version comes of it");
        prop_assert!(lost(&content, LINES) <= touched);
    }
}

#[test]
fn it_is_known_behind_which_edits_lines_were_lost() {
    let whole = journal(4);
    assert_eq!(read(&whole).expect("ours").lost_behind, None);
    let starts: Vec<_> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').collect();
    // Behind the version and the first, empty line.
    for (number, (end, _)) in starts[1..5].iter().enumerate() {
        let mut damaged = whole.clone();
        damaged[end + 20] ^= 1;
        let content = read(&damaged).expect("ours");
        assert_eq!((content.lost_behind, lost(&content, 4)), (Some(number), 1));
    }
    // A crash tears what nobody was told of, and a line's end costs nothing.
    let torn = read(&whole[..whole.len() - 3]).expect("ours");
    assert_eq!((torn.lost_behind, torn.torn_at.is_some()), (None, true));
    let mut ends = whole.clone();
    ends[starts[2].0] = b'x';
    assert_eq!(read(&ends).expect("ours").lost_behind, None);
    assert_eq!(read(b"nothing of it\n").expect("damaged").lost_behind, Some(0));
}

#[test]
fn each_of_many_damaged_lines_is_named() {
    let mut bytes = journal(40);
    let ends: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    // Lines 4, 6, … 42, of which line 42 is the last.
    let damaged: Vec<_> = (4..=42).step_by(2).collect();
    for line in &damaged {
        bytes[ends[line - 2] + 1] ^= 1;
    }
    let content = read(&bytes).expect("ours");
    assert_eq!(content.damage, damaged.iter().map(|line| Damage::Line(*line)).collect::<Vec<_>>());
    assert_eq!(lost(&content, 40), damaged.len());
}

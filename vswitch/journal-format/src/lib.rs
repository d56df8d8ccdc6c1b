//! The text of a journal.
//!
//! Enters: transactions, or the bytes of a file. Leaves: bytes, or the transactions again and what is
//! damaged. Pure: no file is touched, which is why it is a crate: the journal's files are vswitchd's, whose
//! build takes all of the datapath with it, and damage is looked for by a fuzz target.
//!
//! ```text
//!   vswitch-journal 2
//!   9c3ddcd3288c214b 2 []
//!   1b2c3d4e5f607182 57 [{"edit":"lease",…}]
//! ```
//!
//! One line a transaction: a sum of the JSON, its length in bytes, the JSON. By its length a line is
//! known to be whole wherever it stands, so that damage costs the line that it touches and no other:
//! behind damage every byte is tried as the start of a line. No text within a line can pass for one,
//! as JSON escapes the quotes that a transaction has.
//!
//! The first transaction is empty. It vouches for the version above it, a single character that
//! damage could turn into a newer one's.
//!
//! Version 1 had no length, and its sums covered the numbers of the lines. It is read, and never
//! written.

#![forbid(unsafe_code)]

use std::fmt;
use std::hash::Hasher;

use api::Fnv;
use controlplane::model::Edit;

const MAGIC: &str = "vswitch-journal ";
/// The version that is written.
pub const VERSION: u32 = 2;
/// Digits of a sum, and the space behind it.
const SUM_LEN: usize = 17;

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The edits of every line that is whole, in order.
    pub edits: Vec<Edit>,
    /// Lines that are whole.
    pub lines: usize,
    /// What is not as it was written, but for a torn end.
    pub damage: Vec<Damage>,
    /// So many edits are before the last damage that costs lines.
    pub lost_behind: Option<usize>,
    /// Bytes before an end that was torn by a crash, if it was.
    pub torn_at: Option<usize>,
    /// Lines of the version that is written can be added to it.
    pub is_current: bool,
}

impl Content {
    /// The next place is damaged.
    fn is_damaged(&mut self, damage: Damage) {
        if damage.costs_lines() {
            self.lost_behind = Some(self.edits.len());
        }
        self.damage.push(damage);
    }
}

/// A place that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The first line, which has the version. No transaction is lost.
    Version,
    /// A line of this number, or several that are next to each other: they are lost.
    Line(usize),
    /// The end of the line of this number. No transaction is lost.
    LineEnd(usize),
    /// There is not even the first line.
    Everything,
}

impl Damage {
    /// Transactions are lost by it.
    #[must_use]
    pub fn costs_lines(&self) -> bool {
        matches!(self, Self::Line(_) | Self::Everything)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("line 1, which has the version, is damaged"),
            Self::Line(number) => write!(f, "line {number} is damaged and skipped"),
            Self::LineEnd(number) => {
                write!(f, "the end of line {number} is damaged, and nothing of it is lost")
            }
            Self::Everything => f.write_str("nothing of it can be read"),
        }
    }
}

/// A newer version has written the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Newer(
    /// That version.
    pub u32,
);

/// The beginning of every file.
fn beginning() -> serde_json::Result<Vec<u8>> {
    let mut bytes = format!("{MAGIC}{VERSION}\n").into_bytes();
    bytes.extend(line(&[])?);
    Ok(bytes)
}

/// A transaction as a line, with its end.
///
/// # Errors
/// If an edit has what JSON cannot hold: never one of this program's making.
pub fn line(edits: &[Edit]) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(edits)?;
    let mut line = format!("{:016x} {} ", sum(VERSION.into(), &json), json.len()).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// A file that is written anew, with a line for each edit: damage to one costs one.
///
/// # Errors
/// As of [`line`].
pub fn snapshot(edits: &[Edit]) -> serde_json::Result<Vec<u8>> {
    let mut bytes = beginning()?;
    for edit in edits {
        bytes.extend(line(std::slice::from_ref(edit))?);
    }
    Ok(bytes)
}

/// Everything that can be read of a file's bytes.
///
/// # Errors
/// If a newer version has written them.
pub fn read(bytes: &[u8]) -> Result<Content, Newer> {
    let first_line = bytes.iter().position(|byte| *byte == b'\n').map(|end| &bytes[..end]);
    let version = first_line.and_then(version_of);
    // The lines themselves tell which version has written them.
    let start = if version.is_some() { first_line.map_or(0, |line| line.len() + 1) } else { 0 };
    let mut content = scan(bytes, start);
    content.is_current = content.lines > 0;
    if content.lines == 0 {
        let older = read_version_1(bytes);
        if older.lines > 0 || version == Some(1) {
            content = older;
        }
    }
    match version {
        Some(newer) if newer > VERSION && content.lines == 0 => return Err(Newer(newer)),
        Some(VERSION) if content.is_current => {}
        Some(1) if !content.is_current => {}
        _ if content.lines == 0 => {
            content = Content {
                damage: vec![Damage::Everything],
                lost_behind: Some(0),
                ..Content::default()
            };
        }
        _ => {
            // Without a first line the search begins in it.
            content.damage.retain(|damage| *damage != Damage::Line(1));
            content.damage.insert(0, Damage::Version);
        }
    }
    Ok(content)
}

fn version_of(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.parse().ok()
}

/// Every whole line from a place on, and what is between them.
fn scan(bytes: &[u8], start: usize) -> Content {
    let mut content = Content::default();
    let (mut at, mut damaged_from) = (start, None);
    // The line before lacks its end.
    let mut awaits_end = false;
    let mut lines = LineNumbers { bytes, known: (0, 1) };
    while at < bytes.len() {
        let Some((edits, len)) = whole_line(&bytes[at..]) else {
            damaged_from.get_or_insert(at);
            at += 1;
            continue;
        };
        if let Some(from) = damaged_from.take() {
            content.is_damaged(damage(lines.of(from), at - from, awaits_end));
        }
        content.edits.extend(edits);
        content.lines += 1;
        at += len;
        awaits_end = bytes.get(at) != Some(&b'\n');
        at += usize::from(!awaits_end);
    }
    let Some(from) = damaged_from else { return content };
    if bytes[from..].contains(&b'\n') || awaits_end {
        content.is_damaged(damage(lines.of(from), bytes.len() - from, awaits_end));
    } else {
        content.torn_at = Some(from);
    }
    content
}

/// Damage of so many bytes that begins in the line of this number.
fn damage(number: usize, len: usize, awaits_end: bool) -> Damage {
    match awaits_end {
        true if len == 1 => Damage::LineEnd(number),
        true => Damage::Line(number + 1),
        false => Damage::Line(number),
    }
}

/// Numbers of lines, asked for from the front to the back: a large file may be damaged in many places, and
/// each line end is counted once.
struct LineNumbers<'b> {
    bytes: &'b [u8],
    /// A place, and the number of the line that it is in.
    known: (usize, usize),
}

impl LineNumbers<'_> {
    fn of(&mut self, place: usize) -> usize {
        let (known, number) = self.known;
        let ends = self.bytes[known..place].iter().filter(|byte| **byte == b'\n').count();
        self.known = (place, number + ends);
        number + ends
    }
}

/// The transaction that begins here, and the bytes that it has without the line's end.
fn whole_line(bytes: &[u8]) -> Option<(Vec<Edit>, usize)> {
    /// Of a length: no line has more than 10 gigabytes.
    const MAX_DIGITS: usize = 10;
    let expected = sum_of(bytes)?;
    let rest = &bytes[SUM_LEN..];
    let digits = rest.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    let len: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let json = rest.get(digits..)?.strip_prefix(b" ")?.get(..len)?;
    if sum(VERSION.into(), json) != expected {
        return None;
    }
    let edits = serde_json::from_slice(json).ok()?;
    Some((edits, SUM_LEN + digits + 1 + len))
}

/// The sum before a line, as it is written and in no other spelling.
fn sum_of(bytes: &[u8]) -> Option<u64> {
    let hex = bytes.get(..SUM_LEN)?.strip_suffix(b" ")?;
    hex.iter().try_fold(0, |sum: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })
}

/// FNV-1a of 64 bits over a number and bytes: against accidents, not against programs that can write
/// the file. The number is the version; in version 1 it was the line's own.
fn sum(number: u64, bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.write(&number.to_le_bytes());
    hash.write(bytes);
    hash.finish()
}

/// A file of version 1: `SUM JSON`, each sum over the line's number and the JSON.
fn read_version_1(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    let mut at = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let whole = line.strip_suffix(b"\n");
        match whole.and_then(|line| edits_of_version_1(number.checked_sub(1)?, line)) {
            Some(edits) => {
                content.edits.extend(edits);
                content.lines += 1;
            }
            // The version.
            None if number == 0 => {}
            None if whole.is_none() => content.torn_at = Some(at),
            None => content.is_damaged(Damage::Line(number + 1)),
        }
        at += line.len();
    }
    content
}

fn edits_of_version_1(number: usize, line: &[u8]) -> Option<Vec<Edit>> {
    let expected = sum_of(line)?;
    let json = &line[SUM_LEN..];
    if sum(number as u64, json) != expected {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests;

//! Scenarios: packets in, packets out, and every counter that moved.
//!
//! ```text
//! # Why, for the reader.
//! pod a 198.18.1.2                      a node (see `node/topology.rs`), shared by all cases
//! let NAME = eth pod-a > gateway        `@NAME` stands for it below
//! == The case, in a sentence            each begins with a fresh node, and may add to it
//! > pod-a eth ...                       a packet comes in; `x300` behind the port sends it often,
//!                                       `{n}` in it is then its number as two bytes of a MAC
//! < uplink eth ...                      what leaves because of it; `x300` likewise
//! = pod-a rx +1, uplink tx +1           what is counted because of it; `mtu to 203.0.113.12 +1400`
//!                                       is what a router said of the way there
//! > pod-a unreadable frame-too-short    its I/O could not even hand it over
//! > uplink not-handed-over eth ...      another worker was to process it, and has no room
//! + 300s                                time passes
//! ~ service ...                         a declaration that changes the node
//! ! uplink queue-full                   from now on the port fails; `! uplink ok`
//! ? $x != $y                            source ports that were seen
//! ```
//! A line that begins with a blank continues the one above. What leaves and is not named fails the
//! case, and so does any counter that is not named and moved; those of what policies decided (`allowed in`,
//! `denied out`) in cases that name one of them.

mod ledger;
mod run;

use std::path::Path;

pub(crate) use run::Run;

/// One file.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) cases: Vec<Case>,
}

/// One case with the node that it begins with.
#[derive(Default, Clone)]
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) topology: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

/// A line with its number.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: String,
}

#[derive(Clone)]
pub(crate) enum Step {
    Packet { input: Line, leaves: Vec<Line>, counts: Vec<Line> },
    Pass { line: Line },
    Change { line: Line },
    Fail { line: Line },
    Compare { line: Line },
}

/// Every `.walk` file of a directory, by name.
pub(crate) fn read_all(directory: &Path) -> Vec<File> {
    let entries = std::fs::read_dir(directory).expect("the directory of the scenarios");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "walk"));
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        let cases = parse(&text).unwrap_or_else(|error| panic!("{name}:{error}"));
        File { name, cases }
    };
    paths.into_iter().map(read).collect()
}

pub(crate) fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut common = Case::default();
    let mut cases: Vec<Case> = Vec::new();
    let mut names: Vec<(String, String)> = Vec::new();
    for line in logical_lines(text) {
        let number = line.number;
        let text = expand(&line.text, &names);
        let (mark, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let line = Line { number, text: rest.trim().to_owned() };
        let wrong = |what: &str| Err(format!("{number}: {what}"));
        if mark == "==" {
            let mut case = common.clone();
            case.title = line.text;
            cases.push(case);
            continue;
        }
        let case = cases.last_mut().unwrap_or(&mut common);
        match mark {
            "let" => {
                let Some((name, value)) = rest.split_once('=') else {
                    return wrong("`let NAME = ...`");
                };
                names.push((format!("@{}", name.trim()), value.trim().to_owned()));
                names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            }
            ">" => {
                case.steps.push(Step::Packet { input: line, leaves: vec![], counts: vec![] });
            }
            "<" | "=" => match case.steps.last_mut() {
                Some(Step::Packet { leaves, .. }) if mark == "<" => leaves.push(line),
                Some(Step::Packet { counts, .. }) => counts.push(line),
                _ => return wrong("nothing came in that could cause this"),
            },
            "+" => case.steps.push(Step::Pass { line }),
            "~" => case.steps.push(Step::Change { line }),
            "!" => case.steps.push(Step::Fail { line }),
            "?" => case.steps.push(Step::Compare { line }),
            _ if case.steps.is_empty() => case.topology.push(text),
            _ => return wrong("the node stands above the first packet"),
        }
    }
    if let Some(case) = cases.iter().find(|case| case.steps.is_empty()) {
        return Err(format!(" `{}` has no packet", case.title));
    }
    Ok(cases)
}

/// Without comments and empty lines; continued lines joined.
fn logical_lines(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (at, text) in text.lines().enumerate() {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(last) if text.starts_with(' ') => {
                last.text.push(' ');
                last.text.push_str(text.trim());
            }
            _ => lines.push(Line { number: at + 1, text: text.trim_end().to_owned() }),
        }
    }
    lines
}

fn expand(text: &str, names: &[(String, String)]) -> String {
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

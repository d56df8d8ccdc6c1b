//! Typed reading of TOML, which remembers where everything stood.
//!
//! Enters: the text of a configuration file. Leaves: values to `config::sections`, and a [`Problem`]
//! for each that is missing, of the wrong type, out of range or of an unknown name. Reading goes on
//! after a problem, so that an operator sees all of them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Line of the file, counted from one.
    pub line: usize,
    /// Full name of the key; empty if the file is no TOML.
    pub key: String,
    /// What was expected, or what to change.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Where each key stood, so that a later check can name the line too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLines {
    file: String,
    lines: BTreeMap<String, usize>,
}

impl KeyLines {
    /// A problem with a key, or with the section that it should be in.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let line =
            std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|at| &key[..at]))
                .find_map(|key| self.lines.get(key))
                .copied()
                .unwrap_or(1);
        Problem { file: self.file.clone(), line, key: key.to_owned(), message: message.into() }
    }

    /// Name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// One reading of one file.
pub(super) struct Reader<'t> {
    text: &'t str,
    /// An offset and the line that it is in: what is asked for next is seldom far from it.
    known_line: (usize, usize),
    pub(super) origin: KeyLines,
    pub(super) problems: Vec<Problem>,
}

/// A table of the file, or the place where an absent one would be.
pub(super) struct Section<'t> {
    path: String,
    table: Option<&'t DeTable<'t>>,
    taken: BTreeSet<&'static str>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        let origin = KeyLines { file: file.to_owned(), lines: BTreeMap::new() };
        Self { text, known_line: (0, 1), origin, problems: Vec::new() }
    }

    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.origin.problem(key, message));
    }

    pub(super) fn line_of(&mut self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let (known, line) = self.known_line;
        let between = &self.text.as_bytes()[known.min(offset)..known.max(offset)];
        let breaks = between.iter().filter(|byte| **byte == b'\n').count();
        let line = if offset < known { line - breaks } else { line + breaks };
        self.known_line = (offset, line);
        line
    }

    pub(super) fn root(&self, table: &'t DeTable<'t>) -> Section<'t> {
        Section { path: String::new(), table: Some(table), taken: BTreeSet::new() }
    }

    /// Keys that were not read are mistakes.
    pub(super) fn finish(&mut self, section: Section<'_>) {
        for (name, _) in section.table.into_iter().flatten() {
            if section.taken.contains(name.get_ref().as_ref()) {
                continue;
            }
            let known: Vec<_> = section.taken.iter().copied().collect();
            let (key, line) = (section.key(name.get_ref()), self.line_of(name.span().start));
            self.origin.lines.insert(key.clone(), line);
            self.refuse(&key, format!("unknown key; expected one of {}", known.join(", ")));
        }
    }

    pub(super) fn section(&mut self, parent: &mut Section<'t>, name: &'static str) -> Section<'t> {
        let path = parent.key(name);
        let table = self.value(parent, name).and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.refuse(&path, expected("a section", other));
                None
            }
        });
        Section { path, table, taken: BTreeSet::new() }
    }

    pub(super) fn sections(
        &mut self,
        parent: &mut Section<'t>,
        name: &'static str,
    ) -> Vec<Section<'t>> {
        self.tables(parent, name, &format!("sections `[[{name}]]`"))
    }

    /// A list of tables, each in a section of its own or in braces.
    pub(super) fn tables(
        &mut self,
        parent: &mut Section<'t>,
        name: &'static str,
        what: &str,
    ) -> Vec<Section<'t>> {
        let mut sections = Vec::new();
        for (path, value) in self.elements(parent, name, what) {
            match value.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { path, table: Some(table), taken: BTreeSet::new() });
                }
                other => self.refuse(&path, expected(what, other)),
            }
        }
        sections
    }

    pub(super) fn string(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        what: &str,
    ) -> Option<String> {
        let value = self.value(section, name)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                self.refuse(&section.key(name), expected(what, other));
                None
            }
        }
    }

    /// A string that is the text of a `T`.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        what: &str,
    ) -> Option<T> {
        let text = self.string(section, name, what)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.refuse(&section.key(name), format!("expected {what}, found \"{text}\""));
        }
        value
    }

    /// A list of strings, each the text of a `T`.
    pub(super) fn list<T: FromStr>(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        what: &str,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (key, value) in self.elements(section, name, &format!("a list of {what}")) {
            let text = match value.get_ref() {
                DeValue::String(text) => text,
                other => {
                    self.refuse(&key, expected(what, other));
                    continue;
                }
            };
            match text.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.refuse(&key, format!("expected {what}, found \"{text}\"")),
            }
        }
        values
    }

    /// A list of whole numbers.
    pub(super) fn integers(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Vec<u64>> {
        let value = section.table.and_then(|table| table.get(name));
        let is_list = value.is_some_and(|value| value.get_ref().is_array());
        let elements = self.elements(section, name, "a list of whole numbers");
        let values = elements
            .into_iter()
            .filter_map(|(key, value)| self.in_range(&key, value.get_ref(), range.clone()))
            .collect();
        is_list.then_some(values)
    }

    /// A list of whole numbers, some of which have names.
    pub(super) fn names_or_numbers(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        names: &[(&str, u8)],
        what: &str,
    ) -> Vec<u8> {
        let mut values = Vec::new();
        for (key, value) in self.elements(section, name, &format!("a list of {what}")) {
            let text = match value.get_ref() {
                DeValue::Integer(_) => {
                    let number = self.in_range(&key, value.get_ref(), 1..=u64::from(u8::MAX));
                    values.extend(number.and_then(|number| u8::try_from(number).ok()));
                    continue;
                }
                DeValue::String(text) => text,
                other => {
                    self.refuse(&key, expected(what, other));
                    continue;
                }
            };
            match names.iter().find(|(word, _)| word == text) {
                Some((_, value)) => values.push(*value),
                None => self.refuse(&key, format!("expected {what}, found \"{text}\"")),
            }
        }
        values
    }

    pub(super) fn integer(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.value(section, name)?;
        self.in_range(&section.key(name), value.get_ref(), range)
    }

    /// A whole number, or one certain word.
    pub(super) fn integer_or(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        range: RangeInclusive<u64>,
        word: &str,
    ) -> Option<Result<u64, ()>> {
        let value = self.value(section, name)?;
        match value.get_ref() {
            DeValue::String(text) if text == word => Some(Err(())),
            DeValue::String(text) => {
                let (from, to) = range.into_inner();
                self.refuse(
                    &section.key(name),
                    format!("expected {from} to {to} or \"{word}\", found \"{text}\""),
                );
                None
            }
            other => self.in_range(&section.key(name), other, range).map(Ok),
        }
    }

    pub(super) fn boolean(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
    ) -> Option<bool> {
        let value = self.value(section, name)?;
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => {
                self.refuse(&section.key(name), expected("true or false", other));
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let what = quoted.join(" or ");
        let text = self.string(section, name, &what)?;
        let value = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if value.is_none() {
            self.refuse(&section.key(name), format!("expected {what}, found \"{text}\""));
        }
        value
    }

    /// A list of words, each one of several.
    pub(super) fn some_of<T: Copy>(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Vec<T> {
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let what = quoted.join(" or ");
        let mut values = Vec::new();
        for (key, value) in self.elements(section, name, &format!("a list of {what}")) {
            let found = value.get_ref();
            let word = words.iter().find(|(word, _)| found.as_str() == Some(*word));
            match (word, found) {
                (Some((_, value)), _) => values.push(*value),
                (None, DeValue::String(text)) => {
                    self.refuse(&key, format!("expected {what}, found \"{text}\""));
                }
                (None, other) => self.refuse(&key, expected(&what, other)),
            }
        }
        values
    }

    fn in_range(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = value else {
            self.refuse(key, expected(&what, value));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(key, format!("expected {what}, found {}", integer.as_str()));
        }
        number
    }

    fn value(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        section.taken.insert(name);
        let (key, value) = section.table?.get_key_value(name)?;
        let line = self.line_of(key.span().start);
        self.origin.lines.insert(section.key(name), line);
        Some(value)
    }

    fn elements(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        what: &str,
    ) -> Vec<(String, &'t Spanned<DeValue<'t>>)> {
        let Some(value) = self.value(section, name) else { return Vec::new() };
        let path = section.key(name);
        let DeValue::Array(array) = value.get_ref() else {
            self.refuse(&path, expected(what, value.get_ref()));
            return Vec::new();
        };
        let mut elements = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let key = format!("{path}[{index}]");
            let line = self.line_of(value.span().start);
            self.origin.lines.insert(key.clone(), line);
            elements.push((key, value));
        }
        elements
    }
}

impl Section<'_> {
    /// A section that is not there.
    pub(super) fn absent(path: &str) -> Self {
        Self { path: path.to_owned(), table: None, taken: BTreeSet::new() }
    }

    /// Whether a key holds a list; it is not taken by that.
    pub(super) fn has_list(&self, name: &str) -> bool {
        let value = self.table.and_then(|table| table.get(name));
        value.is_some_and(|value| value.get_ref().is_array())
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn expected(what: &str, found: &DeValue<'_>) -> String {
    format!("expected {what}, found a value of type {}", found.type_str())
}

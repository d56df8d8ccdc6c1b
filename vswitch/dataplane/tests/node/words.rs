//! One line, word by word. What is left over at the end is a typing error, never ignored.

use std::fmt::Display;
use std::str::FromStr;

pub(crate) struct Words<'a> {
    line: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        Self { line, rest: line.split_whitespace().collect() }
    }

    /// The next word, whatever it is.
    pub(crate) fn next(&mut self, what: &str) -> Result<&'a str, String> {
        if self.rest.is_empty() {
            return Err(format!("`{}`: {what} is missing", self.line));
        }
        Ok(self.rest.remove(0))
    }

    /// The next word as a value.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&mut self, what: &str) -> Result<T, String> {
        let word = self.next(what)?;
        word.parse().map_err(|error| format!("`{}`: {what} `{word}`: {error}", self.line))
    }

    /// Whether the word stands anywhere in the rest.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.rest.iter().position(|word| *word == name);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    /// The word behind `name`, wherever that stands in the rest.
    pub(crate) fn value<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, String> {
        let Some(at) = self.rest.iter().position(|word| *word == name) else { return Ok(None) };
        self.rest.remove(at);
        if at == self.rest.len() {
            return Err(format!("`{}`: `{name}` wants a value", self.line));
        }
        let word = self.rest.remove(at);
        let value = word.parse();
        value.map(Some).map_err(|error| format!("`{}`: {name} `{word}`: {error}", self.line))
    }

    /// All that is left, word by word.
    pub(crate) fn all<T: FromStr<Err: Display>>(&mut self) -> Result<Vec<T>, String> {
        let mut all = Vec::new();
        while !self.rest.is_empty() {
            all.push(self.parse("value")?);
        }
        Ok(all)
    }

    pub(crate) fn expect(&mut self, word: &str) -> Result<(), String> {
        let next = self.next(word)?;
        if next == word {
            Ok(())
        } else {
            Err(format!("`{}`: expected `{word}`, found `{next}`", self.line))
        }
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("`{}`: unknown `{}`", self.line, self.rest.join(" ")))
        }
    }
}

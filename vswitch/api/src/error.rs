//! An error as people read it.

use std::error::Error;
use std::fmt::Write;

/// An error with all its causes, in one line. A cause that the text before repeats is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn causes_follow_and_none_is_repeated() {
        let root = Link("no route to host", None);
        let inner = Link("cannot connect: no route to host", Some(Box::new(root)));
        let outer = Link("the agent ends", Some(Box::new(inner)));
        assert_eq!(chain(&outer), "the agent ends: cannot connect: no route to host");
    }
}

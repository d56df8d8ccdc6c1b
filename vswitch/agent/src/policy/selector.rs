//! A label selector, and its text.
//!
//! Enters: a LabelSelector of an object. Leaves: whether labels match, and a text that is the same for
//! selectors that say the same in another order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Requirements, all of which labels must meet; without any, all labels do.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// The selector of an object; `None` if it has an operator that is not known.
    #[must_use]
    pub fn new(selector: &LabelSelector) -> Option<Self> {
        let equal = selector.match_labels.iter().flatten().map(|(key, value)| {
            let operator = Operator::In(BTreeSet::from([value.clone()]));
            Some(Requirement { key: key.clone(), operator })
        });
        let expressions = selector.match_expressions.iter().flatten().map(requirement);
        let requirements = equal.chain(expressions).collect::<Option<_>>()?;
        Some(Self { requirements })
    }

    /// A key and values, one of which labels must have to match, if there is such a requirement: of
    /// several the one with the fewest values.
    pub(super) fn anchor(&self) -> Option<(&str, &BTreeSet<String>)> {
        let needed =
            self.requirements.iter().filter_map(|requirement| match &requirement.operator {
                Operator::In(values) => Some((requirement.key.as_str(), values)),
                _ => None,
            });
        needed.min_by_key(|(_, values)| values.len())
    }

    /// Whether labels meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.is_met(labels.get(&requirement.key)))
    }
}

fn requirement(expression: &LabelSelectorRequirement) -> Option<Requirement> {
    let values = || expression.values.iter().flatten().cloned().collect();
    let operator = match expression.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Some(Requirement { key: expression.key.clone(), operator })
}

impl Requirement {
    fn is_met(&self, value: Option<&String>) -> bool {
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            // What does not have the label has none of its values.
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return write!(f, "*");
        }
        for (place, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let key = Word(key);
            match operator {
                Operator::In(values) => write!(f, "{comma}{key} in {}", Words(values))?,
                Operator::NotIn(values) => write!(f, "{comma}{key} notin {}", Words(values))?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::DoesNotExist => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

/// A key or value. Custom resources may have any text there: it is quoted, so that no two selectors have
/// the same text.
pub(crate) struct Word<'a>(pub(crate) &'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        match self.0 {
            text if !text.is_empty() && text.bytes().all(is_plain) => write!(f, "{text}"),
            text => write!(f, "{text:?}"),
        }
    }
}

struct Words<'a>(&'a BTreeSet<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(")?;
        for (place, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { "," }, Word(value))?;
        }
        write!(f, ")")
    }
}

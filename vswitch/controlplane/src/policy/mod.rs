//! From groups, rule sets and subjects to the tables that judge connections.
//!
//! Enters: what sources say of policies, already without labels, and the pods' ports. Leaves:
//! [`Policies`](dataplane::tables::policy::Policies), for `publish`. What is compiled is kept, so that a change costs what it touches: a
//! member of a group that joins a known class is one prefix, one that makes a new class is a row in
//! the tables that name its groups, and a rule set is the tables of its subjects.
//!
//! | file | holds |
//! |---|---|
//! | `compiler`  | the inputs, and what follows of a change |
//! | `judge`     | whether a rule set can be compiled |
//! | `peer_sets` | numbers of the groups and blocks that rules name |
//! | `classes`   | the class of each prefix |
//! | `table`     | the rules of a combination of rule sets, and the rows that they make |
//! | `of_file`   | policies of the configuration file, as rule sets and groups |
//! | `paint`     | a row out of the rules that match a class |
//! | `cap`       | which tables are gone through, as all matrices would be too large |

mod cap;
mod classes;
mod compiler;
mod judge;
mod of_file;
mod paint;
mod peer_sets;
mod table;
#[cfg(test)]
mod tests;

pub use cap::{MATRIX_BYTES, MAX_COMPARISONS};
pub use compiler::{Compiler, Statistics};
pub(crate) use judge::judge as check_rule_set;
pub use judge::{
    MAX_BLOCKS, MAX_GROUP_NAME, MAX_POLICY_NAME, MAX_RULE_SETS_OF_A_POD, MAX_RULES, RuleSetProblem,
};
pub(crate) use of_file::{FILE_NAMES, FilePolicies, rules_of_file};

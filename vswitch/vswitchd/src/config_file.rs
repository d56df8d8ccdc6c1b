//! The configuration file: its text becomes a [`Config`], or the reasons why it does not.

use std::fmt;
use std::path::{Path, PathBuf};

use controlplane::config::{Config, Problem};

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum Refusal {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// What is wrong in it; never empty.
    Problems(Vec<Problem>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(f, "cannot read the configuration {}: {source}", file.display())
            }
            Self::Problems(problems) => {
                for (number, problem) in problems.iter().enumerate() {
                    if number > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{problem}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// Reads and checks a file.
///
/// # Errors
/// If it cannot be read, or every problem that was found in it.
pub fn load(path: &Path) -> Result<Config, Refusal> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Refusal::Unreadable { file: path.to_owned(), source })?;
    Config::parse(&path.display().to_string(), &text).map_err(Refusal::Problems)
}

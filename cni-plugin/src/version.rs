//! The commands of the CNI specification, its versions, and which command exists since which.

use std::ffi::OsString;
use std::fmt;

use crate::error::Error;

/// CNI_COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Plugs the pod in.
    Add,
    /// Unplugs it.
    Del,
    /// Verifies that what ADD made stands.
    Check,
    /// Reports whether ADD could work.
    Status,
    /// Frees what no listed attachment uses.
    Gc,
    /// Lists the supported versions.
    Version,
}

impl Command {
    const ALL: [Self; 6] =
        [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version];

    /// The command that the environment names.
    ///
    /// # Errors
    /// `Env` if there is none, or none of the specification.
    pub fn from_env(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let Some(name) = env("CNI_COMMAND").filter(|name| !name.is_empty()) else {
            return Err(Error::Env("required environment variable CNI_COMMAND is missing".into()));
        };
        Self::ALL.into_iter().find(|command| name == command.as_str()).ok_or_else(|| {
            Error::Env(format!("CNI_COMMAND is {name:?}; this plugin has no such command"))
        })
    }

    /// The command as in CNI_COMMAND.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// The first version of the specification that has it.
    fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_3_1,
            Self::Check => SpecVersion::V0_4_0,
            Self::Status | Self::Gc => SpecVersion::V1_1_0,
        }
    }
}

/// A supported version of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK
    V0_4_0,
    /// 1.0.0: lists only; addresses without `version`
    V1_0_0,
    /// 1.1.0: STATUS and GC; `mtu` of interfaces
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as in `cniVersion`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration with the `cniVersion` `text`, provided that it has `command`.
    ///
    /// # Errors
    /// `Version`, whether the version is unknown or older than the command.
    pub fn of_conf(text: Option<&str>, command: Command) -> Result<Self, Error> {
        // "If absent, assume 0.1.0" is in the specification of versions that had no such key.
        let text = text.unwrap_or("0.1.0");
        let supported = Self::ALL.map(Self::as_str).join(", ");
        let version =
            Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
                Error::Version(format!(
                    "the configuration's cniVersion is {text:?}; this plugin supports {supported}"
                ))
            })?;
        if version < command.since() {
            return Err(Error::Version(format!(
                "{} exists since CNI {}; the configuration's cniVersion is {text:?}",
                command.as_str(),
                command.since(),
            )));
        }
        Ok(version)
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, SpecVersion};

    #[test]
    fn commands_exist_from_their_version_on() {
        let table = [
            (Command::Add, [true, true, true, true]),
            (Command::Del, [true, true, true, true]),
            (Command::Check, [false, true, true, true]),
            (Command::Status, [false, false, false, true]),
            (Command::Gc, [false, false, false, true]),
        ];
        for (command, expected) in table {
            let is = SpecVersion::ALL
                .map(|version| SpecVersion::of_conf(Some(version.as_str()), command).is_ok());
            assert_eq!(is, expected, "{}", command.as_str());
        }
    }

    #[test]
    fn unknown_versions_and_none_are_code_1() {
        for text in [None, Some("0.2.0"), Some("0.3.0"), Some("1.2.0"), Some("")] {
            let error = SpecVersion::of_conf(text, Command::Add).expect_err("unsupported");
            assert_eq!(error.code(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_command_is_required_and_known() {
        for value in [None, Some(""), Some("add"), Some("UPDATE")] {
            let error = Command::from_env(|_| value.map(Into::into)).expect_err("no command");
            assert_eq!(error.code(), 4, "{value:?}");
        }
        assert_eq!(Command::from_env(|_| Some("GC".into())).expect("a command"), Command::Gc);
    }
}

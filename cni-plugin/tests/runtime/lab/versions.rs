//! A behaviour as tests: one for each version of the specification.
//!
//! Enters: functions of a test module. Leaves: `NAME::v0_3_1` to `NAME::v1_1_0`, which `cargo test` lists and runs.

use super::Run;
use super::pod::Lab;

pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Makes four tests of each of these functions. One that wants a `Lab` gets one of its own, as root.
macro_rules! in_every_version {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::lab::versions::Behaviour;

            #[test]
            fn v0_3_1() {
                super::$name.holds(stringify!($name), "0.3.1");
            }

            #[test]
            fn v0_4_0() {
                super::$name.holds(stringify!($name), "0.4.0");
            }

            #[test]
            fn v1_0_0() {
                super::$name.holds(stringify!($name), "1.0.0");
            }

            #[test]
            fn v1_1_0() {
                super::$name.holds(stringify!($name), "1.1.0");
            }
        }
    )+};
}

pub(crate) use in_every_version;

/// A function of a version that asserts a behaviour; `Needs` tells those that want a `Lab` from the others.
pub(crate) trait Behaviour<Needs> {
    /// Panics if it does not hold.
    fn holds(&self, name: &str, version: &str);
}

pub(crate) struct Nothing;

impl<F: Fn(&str)> Behaviour<Nothing> for F {
    fn holds(&self, _: &str, version: &str) {
        self(version);
    }
}

impl<F: Fn(&Lab, &str)> Behaviour<Lab> for F {
    fn holds(&self, name: &str, version: &str) {
        if let Some(lab) = Lab::new(&format!("{name}, version {version}")) {
            self(&lab, version);
        }
    }
}

impl Run {
    /// The `cniVersion` of the configuration.
    pub(crate) fn version(&self) -> &str {
        self.conf["cniVersion"].as_str().expect("a version")
    }

    /// Whether this version has the command. If not, it is refused with code 1.
    pub(crate) fn knows(&self, command: &str) -> bool {
        let since = match command {
            "CHECK" => "0.4.0",
            "STATUS" | "GC" => "1.1.0",
            _ => "0.3.1",
        };
        let is_known = self.version() >= since;
        if !is_known {
            let refused = self.run(command);
            assert_eq!(refused.code(), 1, "{command}: {refused:?}");
            assert_eq!(refused.json()["cniVersion"], self.version(), "{command}");
        }
        is_known
    }
}

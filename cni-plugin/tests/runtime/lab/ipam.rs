//! An IPAM plugin that is played.
//!
//! Enters: what the plugin delegates. Leaves: what its script prints, and the commands that it got.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::Run;

/// An IPAM plugin that notes each command it gets in a file, and runs a script.
pub(crate) struct FakeIpam {
    dir: tempfile::TempDir,
}

impl FakeIpam {
    pub(crate) const RESULT: &str = r#"cat >/dev/null
        [ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0",
            "ips": [{"address": "198.18.1.77/24", "gateway": "198.18.1.1"}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["198.18.0.10"]}}'"#;
    pub(crate) const FAILS_ADD: &str = r#"cat >/dev/null
        [ "$CNI_COMMAND" != ADD ] ||
            { echo '{"code": 42, "msg": "range is full", "details": "not found"}'; exit 1; }"#;

    /// Has a result for ADD, and fails at all else.
    pub(crate) const FAILS_AFTER_ADD: &str = r#"cat >/dev/null
        [ "$CNI_COMMAND" != ADD ] || {
            echo '{"cniVersion": "1.0.0", "ips": [{"address": "198.18.1.77/24"}]}'; exit 0; }
        echo '{"code": 42, "msg": "range is full", "details": "by 7"}'; exit 1"#;

    /// Keeps what it was given.
    pub(crate) const KEEPS_STDIN: &str = r#"cat >"${0%/*}/stdin" "#;

    pub(crate) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let text =
            format!("#!/bin/sh\necho $CNI_COMMAND >>{}/log\n{script}\n", dir.path().display());
        let path = dir.path().join("fake-ipam");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Self { dir }
    }

    /// One whose ADD has this result.
    pub(crate) fn giving(result: &Value) -> Self {
        Self::new(&format!(
            "cat >/dev/null\n[ \"$CNI_COMMAND\" != ADD ] || cat <<'END'\n{result}\nEND"
        ))
    }

    /// Makes `run` delegate to it.
    pub(crate) fn used_by(&self, run: Run) -> Run {
        run.set("CNI_PATH", &self.dir.path().display().to_string())
            .conf("ipam", json!({"type": "fake-ipam"}))
    }

    /// The directory that it is in.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The commands it got, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The configuration that it got last, if it keeps that.
    pub(crate) fn stdin(&self) -> Value {
        let text = fs::read_to_string(self.dir.path().join("stdin")).expect("it was executed");
        serde_json::from_str(&text).expect("JSON")
    }
}

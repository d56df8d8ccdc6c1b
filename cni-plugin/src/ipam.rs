//! Delegation to an IPAM plugin: it is executed with our environment and stdin, so that it sees what
//! the runtime gave; its result or error comes back. Called by the commands.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Call, IpamChoice};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::result::Route;
use crate::version::Command;

/// The IPAM plugin that asks on the pod's own interface: it has to be there, and be forwarded for, before the
/// pod has an address, by which the daemon knows what to forward.
const NEEDS_INTERFACE: &str = "dhcp";

/// A result is some hundred bytes.
const MAX_STDOUT_BYTES: u64 = 1 << 20;

/// Pause between two looks at whether the plugin, which has answered, has also ended.
const EXIT_POLL: Duration = Duration::from_millis(2);

/// The plugin that the configuration names, and the call that it runs for.
#[derive(Clone)]
pub(crate) struct Delegate<'a> {
    name: &'a str,
    path: PathBuf,
    stdin: &'a [u8],
}

/// What a delegated ADD allocated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Allocation {
    #[serde(default)]
    pub(crate) ips: Vec<AllocatedIp>,
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct AllocatedIp {
    pub(crate) address: IpNet,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct CniError {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl<'a> Delegate<'a> {
    /// The plugin's file on CNI_PATH; `None` if the daemon allocates.
    ///
    /// # Errors
    /// `Invalid` if no directory of CNI_PATH has it, or ADD cannot work with it: then nothing was added, and DEL
    /// and GC have nothing to do.
    pub(crate) fn of(call: &'a Call) -> Result<Option<Self>, Error> {
        let IpamChoice::Delegated(name) = &call.conf.ipam else { return Ok(None) };
        if name == NEEDS_INTERFACE {
            return match call.command {
                Command::Del | Command::Gc => Ok(None),
                _ => Err(Error::Invalid(format!(
                    "`ipam.type` is {name:?}, which asks for an address by the pod's interface; vswitch-cni makes that when the pod has its addresses. Leave `ipam` out to get them from vswitchd, or name a plugin that needs no interface, such as host-local or static"
                ))),
            };
        }
        let path = call.env.path.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
        let Some(path) = path else {
            return Err(Error::Invalid(format!(
                "IPAM plugin {name} is in none of CNI_PATH's directories {:?}; install it, or leave \
                 `ipam` out to get addresses from vswitchd",
                call.env.path
            )));
        };
        Ok(Some(Self { name, path, stdin: &call.stdin }))
    }

    /// Allocates.
    ///
    /// # Errors
    /// The plugin's own, or `DelegateBroken`. Either way it may hold something: DEL it.
    pub(crate) fn add(&self, deadline: &Deadline) -> Result<Allocation, Error> {
        let stdout = self.run(Command::Add, deadline)?;
        let allocation: Allocation = serde_json::from_slice(&stdout).map_err(|source| {
            Error::Decode { what: format!("the result of IPAM plugin {}", self.name), source }
        })?;
        if allocation.ips.is_empty() {
            return Err(self.broken("gave no address"));
        }
        Ok(allocation)
    }

    /// Any command that has no result.
    ///
    /// # Errors
    /// The plugin's own, or `DelegateBroken`.
    pub(crate) fn order(&self, command: Command, deadline: &Deadline) -> Result<(), Error> {
        self.run(command, deadline).map(drop)
    }

    fn run(&self, command: Command, deadline: &Deadline) -> Result<Vec<u8>, Error> {
        let mut child = Process::new(&self.path)
            .env("CNI_COMMAND", command.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.broken(format!("cannot be executed: {error}")))?;
        let outcome = self.talk(&mut child, deadline);
        if outcome.is_err() {
            // It may have ended by itself meanwhile; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        let (success, stdout) = outcome?;
        if success {
            return Ok(stdout);
        }
        Err(match serde_json::from_slice::<CniError>(&stdout) {
            Ok(CniError { code, msg, details }) => {
                Error::Delegate { code, msg: format!("IPAM plugin {}: {msg}", self.name), details }
            }
            Err(_) => self.broken("failed without saying why"),
        })
    }

    /// Feeds the child and collects its output. Both pipes have a thread, as a child that reads
    /// nothing, or closes nothing, must not outlast the deadline.
    fn talk(&self, child: &mut Child, deadline: &Deadline) -> Result<(bool, Vec<u8>), Error> {
        let mut stdin = child.stdin.take().expect("it was spawned with a pipe");
        let stdout = child.stdout.take().expect("it was spawned with a pipe");
        let bytes = self.stdin.to_vec();
        // A child that does not want its stdin closes it; its exit status shows the rest.
        thread::spawn(move || _ = stdin.write_all(&bytes));
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut said = Vec::new();
            let read = stdout.take(MAX_STDOUT_BYTES).read_to_end(&mut said);
            _ = sender.send(read.map(|_| said));
        });
        failpoint::hit("cni-ipam-started")?;
        let late = || self.broken("took too long");
        let said = receiver
            .recv_timeout(deadline.remaining().ok_or_else(late)?)
            .map_err(|_| late())?
            .map_err(|error| self.broken(format!("cannot be heard: {error}")))?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok((status.success(), said)),
                Ok(None) if deadline.remaining().is_some() => thread::sleep(EXIT_POLL),
                Ok(None) => return Err(late()),
                Err(error) => return Err(self.broken(format!("cannot be waited for: {error}"))),
            }
        }
    }

    fn broken(&self, why: impl Into<String>) -> Error {
        Error::DelegateBroken { plugin: self.name.to_owned(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use serde_json::json;

    use super::Delegate;
    use crate::config::Call;
    use crate::deadline::Deadline;
    use crate::version::Command;

    /// Runs `script` as the IPAM plugin of an ADD.
    fn add(script: Option<&str>, deadline_ms: u64) -> Result<super::Allocation, crate::Error> {
        let dir = tempfile::tempdir().expect("a directory");
        if let Some(script) = script {
            let path = dir.path().join("fake-ipam");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        let stdin = json!({
            "cniVersion": "1.0.0", "name": "n", "ipam": {"type": "fake-ipam"},
            "padding": "x".repeat(200_000),
        });
        let env =
            |name: &str| Some(if name == "CNI_PATH" { dir.path().into() } else { "c1".into() });
        let call = Call::new(Command::Add, env, stdin.to_string().as_bytes()).expect("valid");
        let delegate = Delegate::of(&call)?.expect("delegated");
        delegate.add(&Deadline::after(Duration::from_millis(deadline_ms)))
    }

    #[test]
    fn the_plugin_reads_our_stdin_and_its_result_is_read() {
        let script = r#"cat >/dev/null; [ "$CNI_COMMAND" = ADD ] || exit 1
            echo '{"cniVersion": "1.0.0", "ips": [{"address": "198.18.1.5/24",
            "gateway": "198.18.1.1"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {}}'"#;
        let allocation = add(Some(script), 20_000).expect("an allocation");
        assert_eq!(allocation.ips[0].address.to_string(), "198.18.1.5/24");
        assert_eq!(allocation.routes[0].dst.to_string(), "0.0.0.0/0");
    }

    #[test]
    fn its_failures_are_told_apart() {
        let table = [
            (
                Some(r#"echo '{"code": 42, "msg": "full", "details": "of it"}'; exit 1"#),
                42,
                "IPAM plugin fake-ipam: full",
            ),
            (Some("exit 3"), 104, "IPAM plugin fake-ipam failed without saying why"),
            (Some("echo '{\"ips\": []}'"), 104, "IPAM plugin fake-ipam gave no address"),
            (Some("echo nonsense"), 6, "cannot decode the result of IPAM plugin fake-ipam"),
        ];
        for (script, code, message) in table {
            let error = add(script, 20_000).expect_err("it failed");
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
        }
        assert_eq!(add(None, 20_000).expect_err("not installed").code(), 7);
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let error = add(Some("exec sleep 600"), 50).expect_err("too late");
        assert_eq!(error.to_string(), "IPAM plugin fake-ipam took too long");
        let error = add(Some("exec sleep 600 >&-"), 50).expect_err("too late");
        assert_eq!(error.to_string(), "IPAM plugin fake-ipam took too long");
    }
}

//! The runtime's call: environment and stdin in, a validated `Call` out, to the command that it
//! names. Nothing here touches the system, except for reading stdin.
//!
//! DEL must work with whatever is left of an attachment, so what only ADD and CHECK need
//! (`prevResult`, `runtimeConfig`, `args`, CNI_ARGS) stays unparsed here.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use api::{AttachmentId, Mode};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Deserialize;
use serde_json::Value;

use crate::bandwidth;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::version::{Command, SpecVersion};

/// A configuration is a few KiB; a GC list with a thousand pods some hundred.
const MAX_STDIN_BYTES: usize = 8 << 20;

/// `sun_path` holds 108 bytes with its NUL (`struct sockaddr_un`, unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// One execution of the plugin.
#[derive(Debug)]
pub struct Call {
    /// The command.
    pub command: Command,
    /// Its environment.
    pub env: Env,
    /// Its configuration.
    pub conf: NetConf,
    /// The configuration as it came, for a delegated plugin.
    pub stdin: Vec<u8>,
}

impl Call {
    /// Validates environment and configuration together.
    ///
    /// # Errors
    /// `Env`, `Decode`, `Version` or `Invalid`.
    pub fn new(
        command: Command,
        env: impl Fn(&str) -> Option<OsString>,
        stdin: &[u8],
    ) -> Result<Self, Error> {
        let env = Env::new(command, env)?;
        let conf = NetConf::parse(stdin, command)?;
        Ok(Self { command, env, conf, stdin: stdin.to_vec() })
    }
}

/// The CNI variables of the environment.
#[derive(Debug, Clone)]
pub struct Env {
    /// CNI_CONTAINERID and CNI_IFNAME; empty for STATUS and GC.
    pub attachment: AttachmentId,
    /// CNI_NETNS, which DEL can do without.
    pub netns: Option<PathBuf>,
    /// CNI_PATH: where IPAM plugins are looked for.
    pub path: Vec<PathBuf>,
    /// CNI_ARGS, unparsed.
    pub args: String,
}

impl Env {
    /// Reads the variables that `command` needs.
    ///
    /// # Errors
    /// `Env`, naming every variable that is missing, or the first that is malformed.
    pub fn new(command: Command, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let required: &[&str] = match command {
            Command::Add | Command::Check => {
                &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
            }
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Command::Status | Command::Gc => &["CNI_PATH"],
            Command::Version => &[],
        };
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let missing: Vec<_> = required.iter().copied().filter(|name| set(name).is_none()).collect();
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(Error::Env(format!("required environment variables missing: {names}")));
        }
        let text = |name: &str| match set(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(value)) => Ok(value),
            Some(Err(value)) => Err(Error::Env(format!("{name} is not UTF-8: {value:?}"))),
        };
        let attachment =
            AttachmentId { container_id: text("CNI_CONTAINERID")?, ifname: text("CNI_IFNAME")? };
        if required.contains(&"CNI_CONTAINERID") {
            if !is_name(&attachment.container_id) {
                return Err(Error::Env(format!(
                    "CNI_CONTAINERID is {:?}; it begins with a letter or digit and holds letters, \
                     digits, `_`, `.` and `-`",
                    attachment.container_id
                )));
            }
            if !is_interface_name(&attachment.ifname) {
                return Err(Error::Env(format!(
                    "CNI_IFNAME is {:?}; an interface's name has 1 to 15 bytes without `/`, `:` and \
                     blanks, and is neither `.` nor `..`",
                    attachment.ifname
                )));
            }
        }
        Ok(Self {
            attachment,
            netns: set("CNI_NETNS").map(PathBuf::from),
            path: set("CNI_PATH")
                .map(|path| std::env::split_paths(&path).filter(|p| p.is_absolute()).collect())
                .unwrap_or_default(),
            args: text("CNI_ARGS")?,
        })
    }
}

/// The specification's pattern for container ids and network names.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// As `dev_valid_name()` of the kernel's net/core/dev.c has it; `:` is for aliases of old.
fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.bytes().any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace() || b == 11)
}

/// The network configuration of one plugin.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `cniVersion`.
    pub version: SpecVersion,
    /// `name` of the network.
    pub name: String,
    /// `socket`: where the daemon listens.
    pub socket: PathBuf,
    /// `stateDir`: the daemon's `control.state_dir`, where a DEL waits for a daemon that is away.
    pub state_dir: PathBuf,
    /// `mode` and `bridge`; the daemon's default if absent.
    pub mode: Option<Mode>,
    /// `mtu`: an upper bound to the daemon's MTU, bytes.
    pub mtu: Option<u32>,
    /// `queues`: of the pod's interface, unparsed.
    pub queues: Option<Value>,
    /// `ipam`.
    pub ipam: IpamChoice,
    /// `dns`, passed through.
    pub dns: Option<Value>,
    /// The keys of the reference plugin `bandwidth`, unparsed.
    pub bandwidth: Option<Value>,
    /// `runtimeConfig`, unparsed.
    pub runtime_config: Option<Value>,
    /// `args`, unparsed.
    pub args: Option<Value>,
    /// `prevResult`, unparsed.
    pub prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`, or `cni.dev/attachments` of older runtimes, unparsed.
    pub valid_attachments: Option<Value>,
}

/// The allocator of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpamChoice {
    /// The daemon, from the node's prefixes.
    Own,
    /// The plugin of this name.
    Delegated(String),
}

#[derive(Deserialize)]
struct RawConf {
    name: Option<String>,
    socket: Option<PathBuf>,
    #[serde(rename = "stateDir")]
    state_dir: Option<PathBuf>,
    mode: Option<String>,
    bridge: Option<String>,
    mtu: Option<u32>,
    queues: Option<Value>,
    ipam: Option<Value>,
    dns: Option<Value>,
    #[serde(rename = "runtimeConfig")]
    runtime_config: Option<Value>,
    args: Option<Value>,
    #[serde(rename = "prevResult")]
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Value>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Value>,
}

impl NetConf {
    /// Decodes and validates; keys that are unknown here are ignored.
    ///
    /// # Errors
    /// `Decode` for what is not JSON or has a key of the wrong type, `Version`, and `Invalid`.
    pub fn parse(bytes: &[u8], command: Command) -> Result<Self, Error> {
        let decode = |source| Error::Decode { what: "the network configuration".into(), source };
        let value: Value = serde_json::from_slice(bytes).map_err(decode)?;
        if !value.is_object() {
            // serde would take a list for a struct, in the order of its fields.
            return Err(decode(serde::de::Error::custom("expected an object")));
        }
        // The version first: the keys mean what they mean only in a known one.
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(rename = "cniVersion")]
            version: Option<String>,
        }
        let versioned = Versioned::deserialize(&value).map_err(decode)?;
        let version = SpecVersion::of_conf(versioned.version.as_deref(), command)?;
        let bandwidth = bandwidth::keys_of(&value);
        let raw = RawConf::deserialize(value).map_err(decode)?;

        let name = raw.name.unwrap_or_default();
        if !is_name(&name) {
            return Err(Error::Invalid(format!(
                "`name` of the network is {name:?}; it begins with a letter or digit and holds \
                 letters, digits, `_`, `.` and `-`"
            )));
        }
        let socket = raw.socket.unwrap_or_else(|| api::DEFAULT_SOCKET.into());
        if !socket.is_absolute() || socket.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(Error::Invalid(format!(
                "`socket` is {socket:?}; expected an absolute path of at most \
                 {MAX_SOCKET_PATH_BYTES} bytes"
            )));
        }
        let state_dir = raw.state_dir.unwrap_or_else(|| api::DEFAULT_STATE_DIR.into());
        if !state_dir.is_absolute() {
            return Err(Error::Invalid(format!(
                "`stateDir` is {state_dir:?}; expected an absolute path, control.state_dir of the \
                 daemon's configuration"
            )));
        }
        // Zero is what other plugins have for the one that they choose themselves.
        let mtu = raw.mtu.filter(|mtu| *mtu != 0);
        if let Some(mtu) = mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
            return Err(Error::Invalid(format!(
                "`mtu` is {mtu}; expected 68 to 65535 bytes, or 0 for what the daemon gives"
            )));
        }
        Ok(Self {
            version,
            name,
            socket,
            state_dir,
            mode: mode(raw.mode.as_deref(), raw.bridge)?,
            mtu,
            queues: raw.queues,
            ipam: IpamChoice::from_conf(raw.ipam.as_ref())?,
            dns: raw.dns,
            bandwidth,
            runtime_config: raw.runtime_config,
            args: raw.args,
            prev_result: raw.prev_result,
            valid_attachments: raw.valid_attachments.or(raw.attachments),
        })
    }
}

fn mode(mode: Option<&str>, bridge: Option<String>) -> Result<Option<Mode>, Error> {
    match (mode, bridge) {
        (None, None) => Ok(None),
        (Some("routed"), None) => Ok(Some(Mode::Routed)),
        (Some("bridged"), bridge) => Ok(Some(Mode::Bridged { bridge })),
        (None | Some("routed"), Some(bridge)) => Err(Error::Invalid(format!(
            "`bridge` is {bridge:?}, which needs `\"mode\": \"bridged\"`"
        ))),
        (Some(other), _) => {
            Err(Error::Invalid(format!("`mode` is {other:?}; expected \"routed\" or \"bridged\"")))
        }
    }
}

impl IpamChoice {
    fn from_conf(value: Option<&Value>) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(Self::Own) };
        let Some(object) = value.as_object() else {
            return Err(Error::Invalid(format!("`ipam` is {value}; expected an object")));
        };
        if object.is_empty() {
            return Ok(Self::Own);
        }
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        // A file of CNI_PATH and nothing else (CVE-2021-20206); and not this plugin, which would
        // execute itself for ever.
        if kind.is_empty() || kind.contains('/') || kind.contains("..") || kind == "vswitch-cni" {
            return Err(Error::Invalid(format!(
                "`ipam.type` is {kind:?}; expected the name of an IPAM plugin, without path, or \
                 leave `ipam` out to get addresses from vswitchd"
            )));
        }
        Ok(Self::Delegated(kind.to_owned()))
    }
}

/// The `cniVersion` that a configuration names, if it can be read at all: errors repeat it.
pub(crate) fn version_text(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value.get("cniVersion")?.as_str().map(str::to_owned)
}

/// All of stdin, which a runtime writes at once and closes.
///
/// # Errors
/// `Io`, also when it is not closed in time or holds more than a configuration can.
pub(crate) fn read_stdin(deadline: &Deadline) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io { doing: "read the network configuration from stdin", source };
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let Some(left) = deadline.remaining() else {
            return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "it was not closed")));
        };
        let timeout = left.try_into().map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        let ready = poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(failed(error.into())),
        }
        // Not through std's buffer, which poll cannot see.
        match rustix::io::read(io::stdin(), &mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(len) => bytes.extend_from_slice(&chunk[..len]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if bytes.len() > MAX_STDIN_BYTES {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("more than {MAX_STDIN_BYTES} bytes"),
            )));
        }
    }
}

#[cfg(test)]
mod tests;

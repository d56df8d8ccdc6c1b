//! What the tests of the binary share: namespaces, a daemon that is played, and the runtime's role.

pub(crate) mod daemon;
mod ipam;
pub(crate) mod pod;
pub(crate) mod versions;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use api::DetachQueue;
use serde_json::{Value, json};

pub(crate) use ipam::FakeIpam;

/// A command bounds its own time to five seconds; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where Debian has containernetworking-plugins.
pub(crate) const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// False, with a message, where namespaces cannot be made.
pub(crate) fn is_root(test: &str) -> bool {
    // The owner of a process's entry in /proc is the user that runs it.
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root {
        skipped(test, "it needs root for its network namespaces");
    }
    root
}

/// Straight to stderr: the harness would hide what it captures.
pub(crate) fn skipped(test: &str, why: &str) {
    // In one write, as other tests' lines come at the same time.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED {test}: {why}\n").as_bytes());
}

/// False, with a message, where one of these plugins is not installed.
pub(crate) fn has_reference(test: &str, plugins: &[&str]) -> bool {
    let is_there = |plugin: &&str| Path::new(REFERENCE_PLUGINS).join(plugin).is_file();
    let all = plugins.iter().all(is_there);
    if !all {
        skipped(test, "containernetworking-plugins is not installed");
    }
    all
}

/// A network namespace that lasts as long as a process in it, which ends with its stdin: whatever
/// ends this test, an interrupt included, ends the namespace.
pub(crate) struct NetNs {
    holder: Child,
}

impl NetNs {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux");
        // The echo shows that `cat` runs, and so that its namespace is the new one.
        holder.stdin.as_mut().expect("piped").write_all(b".").expect("cat reads");
        holder.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("cat answers");
        Self { holder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// The process that it lasts as long as.
    pub(crate) fn process(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, args: &str) -> String {
        let output = self.command("ip").args(args.split(' ')).output().expect("ip of iproute2");
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Names of its links, `lo` left out.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.ip("-o link show");
        // One of a pair has the number of the other behind an @.
        let name = |line: &str| line.split(": ").nth(1)?.split('@').next().map(str::to_owned);
        text.lines().filter_map(name).filter(|name| name != "lo").collect()
    }

    /// Waits for these to be its links. What the daemon closes goes with the last copy of the descriptor, and a
    /// child of another test may have one until it executes its program.
    pub(crate) fn comes_to(&self, links: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while self.links() != links {
            assert!(Instant::now() < deadline, "{:?} instead of {links:?}", self.links());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// One execution of the plugin, as a runtime makes it.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) conf: Value,
    inside: Option<PathBuf>,
    binary: PathBuf,
}

/// What the plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of an error; 0 for success, which must be silent.
    pub(crate) fn code(&self) -> u64 {
        if self.success {
            assert_eq!(self.stdout, "", "success of a command without result");
            return 0;
        }
        self.json()["code"].as_u64().unwrap_or_else(|| panic!("no code: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let part = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        format!("{} | {}", part("msg"), part("details"))
    }
}

impl Run {
    /// For the daemon with this socket, whose state directory is that of the socket.
    pub(crate) fn new(version: &str, socket: &Path) -> Self {
        Self {
            env: Vec::new(),
            conf: json!({
                "cniVersion": version, "name": "pods", "type": "vswitch-cni", "socket": socket,
                "stateDir": socket.parent(),
            }),
            inside: None,
            binary: env!("CARGO_BIN_EXE_vswitch-cni").into(),
        }
        .set("CNI_PATH", REFERENCE_PLUGINS)
    }

    /// Runs it in the namespace that plays the node's.
    pub(crate) fn on(mut self, node: &NetNs) -> Self {
        self.inside = Some(node.path());
        self
    }

    pub(crate) fn container(self, id: &str, netns: &Path) -> Self {
        self.set("CNI_CONTAINERID", id)
            .set("CNI_IFNAME", "eth0")
            .set("CNI_NETNS", &netns.display().to_string())
    }

    /// Has this file executed, which is the plugin as well.
    pub(crate) fn by(mut self, binary: &Path) -> Self {
        self.binary = binary.into();
        self
    }

    /// The same call for a plugin of Debian's containernetworking-plugins.
    pub(crate) fn of_reference(mut self, plugin: &str, mut conf: Value) -> Self {
        self.binary = Path::new(REFERENCE_PLUGINS).join(plugin);
        conf["cniVersion"] = self.conf["cniVersion"].clone();
        conf["name"] = format!("of-{plugin}").into();
        conf["type"] = plugin.into();
        self.conf = conf;
        self
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(key, _)| key != name);
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn conf(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.conf[key] = value.into();
        self
    }

    pub(crate) fn add(&self) -> Answer {
        self.run("ADD")
    }

    pub(crate) fn del(&self) -> Answer {
        self.run("DEL")
    }

    pub(crate) fn check(&self, previous: &Value) -> Answer {
        self.clone().conf("prevResult", previous.clone()).run("CHECK")
    }

    pub(crate) fn run(&self, command: &str) -> Answer {
        self.run_with(command, self.conf.to_string().as_bytes())
    }

    pub(crate) fn run_with(&self, command: &str, stdin: &[u8]) -> Answer {
        let mut process = self.process(command);
        let mut child = process.spawn().expect("the plugin starts");
        // A plugin that refuses its environment ends before it has read anything.
        match child.stdin.take().expect("piped").write_all(stdin) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.expect("the plugin reads"),
        }
        finished(child)
    }

    /// Runs it in a mount namespace in which nobody answers for what is below `mount`.
    pub(crate) fn run_on_hung_mount(&self, command: &str, mount: &Path) -> Answer {
        let script = "exec 3<>/dev/fuse &&
            mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung \"$1\" && exec \"$2\"";
        let plugin = self.process(command);
        let mut process = Command::new("unshare");
        process.args(["--mount", "sh", "-c", script, "sh"]).arg(mount).arg(plugin.get_program());
        process.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for (name, value) in plugin.get_envs() {
            process.env(name, value.unwrap_or_default());
        }
        let mut child = process.spawn().expect("unshare of util-linux");
        let conf = self.conf.to_string();
        child.stdin.take().expect("piped").write_all(conf.as_bytes()).expect("the plugin reads");
        finished(child)
    }

    pub(crate) fn process(&self, command: &str) -> Command {
        let binary = &self.binary;
        let mut process = match &self.inside {
            Some(netns) => {
                let mut process = Command::new("nsenter");
                process.arg(format!("--net={}", netns.display())).arg("--").arg(binary);
                process
            }
            None => Command::new(binary),
        };
        process.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        process.envs(self.env.iter().cloned()).env("CNI_COMMAND", command);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        process
    }
}

/// The answer of a plugin, which ends by itself: killed if it does not.
pub(crate) fn finished(mut child: Child) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    while !has_ended(&mut child) {
        if Instant::now() >= deadline {
            child.kill().expect("it runs");
            panic!("the plugin does not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
    answer(child.wait_with_output().expect("it has ended"))
}

pub(crate) fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("it is our child").is_some()
}

pub(crate) fn answer(output: Output) -> Answer {
    Answer {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
    }
}

/// Containers whose detachment waits in a state directory.
pub(crate) fn queued(state_dir: &Path) -> Vec<String> {
    let queue = DetachQueue::open(state_dir).expect("a state directory");
    let queued = queue.queued().expect("readable");
    assert_eq!(queued.damaged, [""; 0].map(PathBuf::from));
    let mut ids: Vec<_> = queued.attachments.into_iter().map(|id| id.container_id).collect();
    ids.sort();
    ids
}

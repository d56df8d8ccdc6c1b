"""A node for faults: its supervised daemon, its pods, and everything that it holds.

Enters: the lab's directory, the binaries, faults of failpoint::PLACES. Leaves: calls of the plugin, and
snapshots of what daemon, supervisor, kernel and disk have, to be compared. A fault that is meant for the
daemon is written into a file, which is gone once it has happened.
"""

import collections
import ipaddress
import itertools
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "lib"))
import soak_namespaces as namespaces

PATIENCE_S = 20
# CNI's code of a refusal that does not last.
TRY_AGAIN = '"code":11'
HOST_LOCAL = "/usr/lib/cni/host-local"
# netlink::ROUTE_PROTOCOL, by which the daemon's routes are known.
OWN_PROTOCOL = "86"

# Pods of host-local and others do not get each other's addresses: its range is the end of the prefix. The way of ports
# is named: a start that measures anew may choose the other one, and a ring is a descriptor.
CONFIG = """
[node]
name = "{name}"
pod_prefixes = ["198.18.1.0/24"]
cluster_prefixes = ["198.18.0.0/16"]
[uplink]
interface = "eth0"
[workers]
frames = 256
port_io = "read_write"
[control]
socket = "{socket}"
state_dir = "{state}"
"""
RANGE_START = "198.18.1.128"

Answer = collections.namedtuple("Answer", "code said log")


def wait_for(what, condition, seconds=PATIENCE_S):
    """Until it answers with nothing; otherwise with what is missing."""
    deadline = time.monotonic() + seconds
    while why := condition():
        assert time.monotonic() < deadline, f"{what}: {why}"
        time.sleep(0.03)


def run(*command, given="", environment=None):
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, env=environment
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def inside(namespace, *command):
    return ("nsenter", f"--net={namespaces.path(namespace)}", "--") + command


class Pod:
    def __init__(self, node, name, by_host_local=False, is_bridged=False, by_process=False):
        self.node, self.has_ended, self.process = node, False, None
        self.namespace = f"{node.namespace}{name}"
        self.config = {
            "cniVersion": "1.0.0", "name": "faults", "type": "vswitch-cni",
            "socket": node.socket, "stateDir": node.state,
        }
        if by_host_local:
            self.config["ipam"] = {
                "type": "host-local", "dataDir": node.leases,
                "subnet": "198.18.1.0/24", "rangeStart": RANGE_START,
            }
        if is_bridged:
            self.config["mode"] = "bridged"
        self.node.add_namespace(self.namespace)
        self.path = namespaces.path(self.namespace)
        if by_process:
            self.process = subprocess.Popen(
                inside(self.namespace, "sleep", "600"),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            wait_for("its process", self.is_entered)
            self.path = f"/proc/{self.process.pid}/ns/net"

    def is_entered(self):
        own, there = (os.stat(f"/proc/{process}/ns/net").st_ino for process in ("self", self.process.pid))
        return "it has not entered its namespace" if own == there else ""

    def cni(self, command, fault=""):
        """Executes the plugin; an exit code below 0 is a signal."""
        environment = {
            "PATH": os.environ["PATH"], "RUST_BACKTRACE": "0", "VSWITCH_FAILPOINTS": fault,
            "CNI_COMMAND": command, "CNI_CONTAINERID": self.namespace, "CNI_IFNAME": "eth0",
            "CNI_NETNS": self.path, "CNI_PATH": os.path.dirname(HOST_LOCAL),
        }
        plugin = inside(self.node.namespace, f"{self.node.binaries}/vswitch-cni")
        return run(*plugin, given=json.dumps(self.config), environment=environment)

    def add(self):
        answer = self.cni("ADD")
        if answer.code != 0 and TRY_AGAIN in answer.said:
            # As an adjuster does at every start, and then a runtime.
            self.node.adjust()
            answer = self.cni("ADD")
        assert answer.code == 0, f"ADD: {answer}"
        return json.loads(answer.said)["ips"][0]["address"].split("/")[0]

    def delete(self):
        answer = self.cni("DEL")
        assert answer.code == 0, f"DEL: {answer}"

    def end(self):
        """Its namespace goes, as far as the runtime sees."""
        if self.process:
            self.process.kill()
            self.process.wait()
        namespaces.delete(self.namespace)
        self.has_ended = True

    def interfaces(self):
        return sorted(namespaces.interfaces(self.namespace))

    def pings(self, address):
        return run(*inside(self.namespace, "ping", "-qnc", "1", "-W", "1", address)).code == 0


class Node:
    """Its namespace has a NIC that leads to nobody."""

    def __init__(self, lab, binaries, name, is_supervised=True):
        self.name, self.binaries, self.is_supervised = name, binaries, is_supervised
        self.register = os.path.join(lab, "namespaces")
        self.namespace = f"vsw-{os.path.basename(lab).removeprefix('vswitch-lab-')}-{name}"
        self.directory = os.path.join(lab, name)
        self.state, self.leases, self.socket, self.config, self.fault = (
            os.path.join(self.directory, file)
            for file in ("state", "host-local", "vswitch.sock", "vswitch.toml", "fault")
        )
        self.log = os.path.join(lab, "logs", f"vswitchd-{name}.log")
        self.program = None
        self.has_host_local = os.access(HOST_LOCAL, os.X_OK)
        self.numbers = itertools.count()
        # The pods that stay, with their addresses, and what the node holds with them alone.
        self.staying, self.before = [], None
        os.makedirs(self.state)
        self.add_namespace(self.namespace)
        for command in (
            "link add eth0 type veth peer name wire",
            "address add 198.51.100.11/25 dev eth0",
            "link set eth0 up",
            "link set wire up",
        ):
            self.ip(*command.split())
        with open(self.config, "w", encoding="ascii") as file:
            file.write(CONFIG.format(name=name, socket=self.socket, state=self.state))

    def add_namespace(self, name):
        namespaces.add(name, self.register)
        namespaces.ip("-n", name, "link", "set", "lo", "up")

    def ip(self, *words):
        return namespaces.ip("-n", self.namespace, *words).splitlines()

    # A fault of the daemon's or of its supervisor's: it happens once.

    def plan(self, fault):
        with open(self.fault + ".new", "w", encoding="ascii") as file:
            file.write(fault)
        os.rename(self.fault + ".new", self.fault)

    def has_happened(self):
        return not os.path.exists(self.fault)

    def forget_fault(self):
        if not self.has_happened():
            os.remove(self.fault)

    # The daemon.

    def start(self):
        environment = dict(
            os.environ, VSWITCH_FAILPOINTS=f"@{self.fault}", NO_COLOR="1", RUST_BACKTRACE="0"
        )
        role = ("supervise",) if self.is_supervised else ()
        with open(self.log, "ab") as log:
            self.program = subprocess.Popen(
                inside(self.namespace, f"{self.binaries}/vswitchd", *role, "--config", self.config),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )

    def runs(self):
        return self.program is not None and self.program.poll() is None

    def processes(self):
        """Of the daemon: one, unless it is just being started again."""
        return children(self.program.pid) if self.is_supervised else [self.program.pid]

    def daemon(self):
        """Its process, when it forwards. What ended, and nobody supervises, is started again."""
        found = []

        def is_missing():
            if not self.runs():
                self.start()
            found[:] = self.processes()
            is_up = self.ctl("status") is not None and self.runs() and self.processes() == found
            return "" if is_up else "it does not answer"

        wait_for("the daemon", is_missing)
        return found[0]

    def first_start(self, fault):
        """Of a daemon that nobody supervises; its exit code."""
        command = f"{self.binaries}/vswitchd", "--config", self.config
        environment = dict(os.environ, VSWITCH_FAILPOINTS=fault)
        return run(*inside(self.namespace, *command), environment=environment).code

    def end_daemon(self, number):
        daemon = self.daemon()
        os.kill(daemon, number)
        wait_for("the daemon's end", lambda: self.is_there(daemon))

    def end_program(self):
        """Supervisor and daemon end, and so does what they had open."""
        daemons = self.processes()
        self.program.kill()
        for daemon in daemons:
            wait_for("the daemon's end", lambda: self.is_there(daemon))

    def is_there(self, process):
        # One that has ended is there until its parent looks.
        self.runs()
        return "it is there" if os.path.exists(f"/proc/{process}") else ""

    def ctl(self, *words):
        answer = run(f"{self.binaries}/vswitchctl", "--socket", self.socket, *words, "--json")
        return json.loads(answer.said) if answer.code == 0 else None

    def drain(self):
        command = f"{self.binaries}/vswitchd", "--config", self.config, "--drain"
        return run(*inside(self.namespace, *command)).code

    def adjust(self, fault=""):
        """Opens interfaces again whose descriptors were lost; needs nothing where none were."""
        command = f"{self.binaries}/vswitch-cni", "--adjust", self.socket
        environment = dict(os.environ, VSWITCH_FAILPOINTS=fault)
        return run(*inside(self.namespace, *command), environment=environment).code

    # What it holds.

    def is_ready(self):
        return self.before is not None

    def prepare(self):
        """Two pods that stay, and what the node holds with them."""
        self.daemon()
        # A daemon that was left a descriptor of a pod it does not know adds none before the look.
        self.adjust()
        if not self.is_ready():
            while len(self.staying) < 2:
                pod = Pod(self, f"n{next(self.numbers)}")
                self.staying.append((pod, pod.add()))
            self.serves()
            self.before = self.holds()

    def forget(self):
        """What is left of a case that failed is no fault of the next."""
        self.before = None

    def pods_are_gone(self):
        self.before, self.staying = None, []

    def serves(self):
        (one, address), (other, other_address) = self.staying
        for pod, to in (one, other_address), (other, address):
            wait_for("the pods that stay", lambda: "" if pod.pings(to) else f"no answer of {to}", 5)

    def is_as_before(self):
        if not self.is_supervised:
            self.daemon()
            self.adjust()
        wait_for("not as before", lambda: differences(self.before, self.holds()), 6)

    def holds(self):
        """All of it: two snapshots that are equal show that nothing was left in between."""
        daemon = self.daemon()
        ports, fdb, fib = (self.ctl("show", what) or [] for what in ("ports", "fdb", "fib"))
        return {
            "ports": [f"{port['name']} {port['up']} {port['addresses']}" for port in ports],
            "FDB": [json.dumps(entry) for entry in fdb],
            "FIB": [json.dumps(entry) for entry in fib],
            "routes": self.ip("-4", "route", "show", "table", "all"),
            "interfaces": self.links(),
            "descriptors of the daemon": descriptors(daemon),
            "descriptors of its supervisor": descriptors(self.program.pid) if self.is_supervised else [],
            "files": list(files(self.state)),
            "host-local's addresses": [name for name in files(self.leases) if is_address(name)],
        }

    def links(self):
        return sorted(re.split("[:@] *", line)[1] for line in self.ip("-oneline", "link", "show"))

    def tables(self):
        return run(*inside(self.namespace, "nft", "list", "tables")).said.splitlines()

    def own_routes(self):
        return self.ip("route", "show", "proto", OWN_PROTOCOL)

    def has_xdp(self):
        return any("prog/xdp" in line for line in self.ip("link", "show", "dev", "eth0"))

    def panics(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return [line for line in log if "panicked" in line]


def differences(before, after):
    """What is left and what is gone, in words."""
    found = []
    for what, was in before.items():
        was, now = collections.Counter(was), collections.Counter(after[what])
        found += [f"{what}: {each} is left" for each in now - was]
        found += [f"{what}: {each} is gone" for each in was - now]
    return "; ".join(found)


def children(process):
    try:
        with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def descriptors(process):
    """By kind. Sockets come and go with clients."""
    kinds = []
    for number in os.listdir(f"/proc/{process}/fd"):
        try:
            kind = os.readlink(f"/proc/{process}/fd/{number}")
        except FileNotFoundError:
            continue
        if not kind.startswith(("socket:", "pipe:")):
            kinds.append(kind)
    return kinds


def files(directory):
    for parent, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), directory)


def is_address(path):
    try:
        return bool(ipaddress.ip_address(os.path.basename(path)))
    except ValueError:
        return False

"""Executes a CNI plugin as a container runtime does, and says how long it took.

Enters: the plugin, the network's configuration, the command, the pod. Leaves: exit code, result and
seconds. All plugins are called alike, so that what they take can be compared.
"""

import json
import os
import signal
import subprocess
import threading
import time

import soak_namespaces as namespaces

TIMEOUT_S = 30


class Network:
    """A plugin with its configuration. The calling process is in the node's namespace."""

    def __init__(self, program, config_file, name=None):
        """NAME is the network's, where the configuration is for several."""
        self.program = program
        with open(config_file, encoding="utf-8") as file:
            self.config = json.load(file)
        if name is not None:
            self.config["name"] = name
        self.name = self.config["name"]
        self.path = f"{os.path.dirname(program)}:/usr/lib/cni"

    def add(self, pod, kill_after=None, address=None):
        """ADDRESS is asked for, where there is one."""
        return self.call("ADD", pod, None, kill_after, f";IP={address}" if address else "")

    def delete(self, pod, result=None, kill_after=None):
        return self.call("DEL", pod, result, kill_after)

    def collect(self, pods):
        """GC, by which these are all that the runtime knows of the network."""
        listed = [{"containerID": pod, "ifname": "eth0"} for pod in pods]
        config = self.config | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": "GC", "CNI_PATH": self.path}
        return execute(self.program, config, environment)

    def call(self, command, pod, result, kill_after, arguments=""):
        config = dict(self.config)
        if result is not None:
            config["prevResult"] = result
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": namespaces.path(pod),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self.path,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=soak;K8S_POD_NAME={pod}{arguments}",
        }
        return execute(self.program, config, environment, kill_after)


def execute(program, config, environment, kill_after=None):
    """KILL_AFTER so many seconds the plugin is killed, if it still runs."""
    began = time.monotonic()
    plugin = subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    timer = None
    if kill_after is not None:
        timer = threading.Timer(kill_after, plugin.kill)
        timer.start()
    try:
        said, _ = plugin.communicate(json.dumps(config).encode(), timeout=TIMEOUT_S)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        plugin.kill()
        said, _ = plugin.communicate()
    finally:
        if timer is not None:
            timer.cancel()
    return Answer(plugin.returncode, said, time.monotonic() - began)


class Answer:
    def __init__(self, code, said, seconds):
        self.code, self.seconds = code, seconds
        try:
            self.result = json.loads(said)
        except ValueError:
            self.result = None

    @property
    def succeeded(self):
        return self.code == 0

    @property
    def was_killed(self):
        return self.code == -signal.SIGKILL

    @property
    def reason(self):
        if isinstance(self.result, dict) and "msg" in self.result:
            return f"{self.result['msg']}: {self.result.get('details', '')}"
        return f"exit code {self.code}"

    def addresses(self):
        return [each["address"] for each in self.result.get("ips", [])]

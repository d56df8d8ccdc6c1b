"""What a daemon makes of a journal that was cut, or of which a bit was flipped.

Usage: soak_journal.py VSWITCHD VSWITCHCTL CONFIG PLUGIN NETWORK PREFIX REGISTER CUTS FLIPS

CONFIG is that of a daemon that has ended; its state directory has the journal of pods that live. For
each sample the state directory is put back, the journal is damaged, a daemon is started on it in this
network namespace, and the pods' TAPs are opened again. It is cut off at CUTS places, evenly over it, or at each
byte if there are fewer; at half as many a byte is cut out; FLIPS bits at random are flipped. In a fifth of the
samples, and where a pod was lost, another is added and deleted besides. It asks for the lost one's address, and
must not get that of one that lives.

Prints one JSON object for each of the three: starts that failed, the most pods that a sample lost, the most
of those of which no line was damaged, how often two pods had an address.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import soak_namespaces as namespaces
from soak_plugin import Network

START_S = 15


class Node:
    def __init__(self, vswitchd, vswitchctl, config, plugin, network, prefix, register):
        self.vswitchd, self.vswitchctl, self.config = vswitchd, vswitchctl, config
        self.plugin, self.network = plugin, Network(plugin, network)
        with open(config, "rb") as file:
            control = tomllib.load(file)["control"]
        self.socket, self.state = control["socket"], control["state_dir"]
        self.saved = self.state + ".saved"
        shutil.copytree(self.state, self.saved, symlinks=True)
        self.pod = f"{prefix}j0"
        namespaces.add(self.pod, register)
        with open(os.path.join(self.saved, "journal"), "rb") as file:
            self.journal = file.read()
        self.daemon = None

    def start(self, journal):
        """The ports of a daemon on that journal, or none if it does not start."""
        shutil.rmtree(self.state)
        shutil.copytree(self.saved, self.state, symlinks=True)
        with open(os.path.join(self.state, "journal"), "wb") as file:
            file.write(journal)
        # Its owner may be another than ours.
        shutil.copystat(self.saved, self.state)
        self.daemon = subprocess.Popen(
            [self.vswitchd, "--config", self.config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.daemon.poll() is None:
            if self.ports() is not None:
                self.open_again()
                return self.ports()
            time.sleep(0.02)
        return None

    def open_again(self):
        adjust = [self.plugin, "--adjust", self.socket]
        subprocess.run(adjust, capture_output=True, check=False, timeout=START_S)

    def ports(self):
        """The pods that are forwarded for, with their addresses; none if no daemon answers."""
        asked = subprocess.run(
            [self.vswitchctl, "--socket", self.socket, "show", "ports", "--json"],
            capture_output=True,
            check=False,
        )
        if asked.returncode != 0:
            return None
        return {
            port["attachment"]["container_id"]: port["addresses"]
            for port in json.loads(asked.stdout)
            if port["attachment"] and port["up"]
        }

    def stop(self):
        if self.daemon is not None:
            if self.daemon.poll() is None:
                self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def added(self, wanted):
        """Addresses that a new pod gets, which asks for one."""
        answer = self.network.add(self.pod, address=wanted)
        self.network.delete(self.pod)
        if not answer.succeeded:
            return []
        return [address.split("/")[0] for address in answer.addresses()]


class Tally:
    def __init__(self, node, what, total):
        self.node, self.what, self.total = node, what, total
        self.counts = {
            "samples": 0, "not_started": 0, "most_lost": 0, "whole_lost": 0, "duplicates": 0, "adds": 0
        }  # fmt: skip

    def sample(self, journal, live, whole):
        """LIVE: the pods and their addresses. WHOLE: those of them of which no line is damaged."""
        counts = self.counts
        counts["samples"] += 1
        try:
            ports = self.node.start(journal)
            if ports is None:
                counts["not_started"] += 1
                return
            lost = live.keys() - ports.keys()
            counts["most_lost"] = max(counts["most_lost"], len(lost))
            counts["whole_lost"] = max(counts["whole_lost"], len(whole & lost))
            have = [address for addresses in ports.values() for address in addresses]
            counts["duplicates"] += len(have) - len(set(have))
            if lost or counts["samples"] % 5 == 0:
                counts["adds"] += 1
                wanted = live[min(lost)][0] if lost else None
                alive = {address for addresses in live.values() for address in addresses}
                counts["duplicates"] += bool(alive & set(self.node.added(wanted)))
        finally:
            self.node.stop()
        if counts["samples"] % 20 == 0:
            print(f"▸ {counts['samples']} of {self.total} {self.what}", file=sys.stderr, flush=True)


def lines_of(journal):
    """Where each line begins and ends, with its newline."""
    begin = 0
    for line in journal.splitlines(keepends=True):
        yield begin, begin + len(line)
        begin += len(line)


def main():
    cuts, flips = int(sys.argv[8]), int(sys.argv[9])
    node = Node(*sys.argv[1:8])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        live = node.start(node.journal)
        node.stop()
        if not live:
            sys.exit("the daemon does not start on the whole journal, or forwards for no pod")
        print(json.dumps(cut_off(node, live, cuts)), flush=True)
        print(json.dumps(cut_out(node, live, max(1, cuts // 2))), flush=True)
        print(json.dumps(flip(node, live, flips)), flush=True)
    finally:
        node.stop()


def cut_off(node, live, cuts):
    journal = node.journal
    lines = list(lines_of(journal))
    last = {pod: max(e for b, e in lines if pod.encode() in journal[b:e]) for pod in live}
    places = range(0, len(journal), max(1, len(journal) // cuts))
    tally = Tally(node, "cuts", len(places))
    for place in places:
        tally.sample(journal[:place], live, {pod for pod in live if last[pod] <= place})
    return tally.counts | {"bytes": len(journal), "pods": len(live)}


def cut_out(node, live, cuts):
    journal = node.journal
    places = range(0, len(journal), max(1, len(journal) // cuts))
    tally = Tally(node, "bytes cut out", len(places))
    for place in places:
        tally.sample(journal[:place] + journal[place + 1 :], live, undamaged(journal, live, place))
    return tally.counts


def flip(node, live, flips):
    tally = Tally(node, "flips", flips)
    for _ in range(flips):
        damaged = bytearray(node.journal)
        place = random.randrange(len(damaged))
        damaged[place] ^= 1 << random.randrange(8)
        tally.sample(bytes(damaged), live, undamaged(node.journal, live, place))
    return tally.counts


def undamaged(journal, live, place):
    """Those of whom nothing stands in the line at this place."""
    begin, end = next((b, e) for b, e in lines_of(journal) if b <= place < e)
    return {pod for pod in live if pod.encode() not in journal[begin:end]}


main()

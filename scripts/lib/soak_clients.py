"""Clients of the control socket that mean harm, each kind of them beside ADDs of well-meaning ones.

Usage: soak_clients.py SOCKET DAEMON PLUGIN CONFIG PREFIX REGISTER MESSAGES IDLE DRIPPING DESCRIPTORS ADDS

It runs in the node's network namespace, as root; DAEMON is the daemon's process. ADDS pods are added and deleted
while nobody does harm, and again, as many or as time is for, while each kind of client does:

- MESSAGES messages that are none, or requests with wrong bytes in them;
- IDLE clients that connect and ask nothing;
- DRIPPING clients that send a byte of a request now and then, and come again when they are sent away;
- lengths of up to 4 GiB;
- clients of another user, which may connect as the test opens the socket's mode for them;
- DESCRIPTORS messages with descriptors of wrong kinds, or too many of them.

Prints one JSON object: of each kind what became of its clients, how many ADDs were refused, what they took, and
how many descriptors more the daemon has when they are gone.
"""

import collections
import itertools
import json
import multiprocessing
import os
import stat
import sys
import time

import soak_bad_clients as bad_clients
import soak_namespaces as namespaces
from soak_plugin import Network
from soak_traffic import percentile

# Between ADDs: what the kernel still removes of the last one would delay the next.
PAUSE_S = 0.1
# Until the daemon has noticed that its clients are gone.
PATIENCE_S = 20
# Beside clients that are soon through with what they do.
LEAST_ADDS = 5
# Lengths, and clients of another user: a few show it.
A_FEW = 200
NOBODY = 65534


class Adds:
    def __init__(self, network, prefix, register):
        self.network, self.prefix, self.register = network, prefix, register
        self.numbers = itertools.count()

    def some(self, count, goes_on=lambda: False):
        """So many, and more while that is true; milliseconds of those that succeed, and why others do not."""
        times, refused = [], collections.Counter()
        while len(times) + sum(refused.values()) < count or goes_on():
            pod = f"{self.prefix}h{next(self.numbers)}"
            namespaces.add(pod, self.register)
            try:
                answer = self.network.add(pod)
                if answer.succeeded:
                    times.append(answer.seconds * 1000)
                else:
                    refused[answer.reason] += 1
                ended = self.network.delete(pod, answer.result if answer.succeeded else None)
                if not ended.succeeded:
                    refused[f"DEL: {ended.reason}"] += 1
            finally:
                namespaces.delete(pod)
            time.sleep(PAUSE_S)
        return times, refused


def summary(times, refused):
    return {
        "adds": len(times),
        "refused": sum(refused.values()),
        "reasons": dict(refused),
        "p50_ms": round(percentile(sorted(times), 50), 1),
        "most_ms": round(max(times, default=0), 1),
    }


class Daemon:
    def __init__(self, process):
        self.process = process
        self.before = self.descriptors()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process}/fd"))

    def descriptors_more(self):
        deadline = time.monotonic() + PATIENCE_S
        while self.descriptors() > self.before and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.descriptors() - self.before

    def memory_kib(self):
        with open(f"/proc/{self.process}/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def meanwhile(adds, count, daemon, kind, *arguments):
    """The kind does harm in a process of its own until the ADDs are done, or there are ADDs until it is."""
    begins, ends = multiprocessing.Event(), multiprocessing.Event()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(
        target=bad_clients.begin, args=(kind, arguments, begins, ends, theirs), daemon=True
    )
    process.start()
    theirs.close()
    if not begins.wait(60):
        sys.exit(f"the clients of {kind.__name__} did not begin")
    if kind.is_endless:
        result = summary(*adds.some(count))
    else:
        result = summary(*adds.some(LEAST_ADDS, goes_on=process.is_alive))
    ends.set()
    try:
        result["clients"] = ours.recv()
    except EOFError:
        sys.exit(f"the clients of {kind.__name__} broke off")
    process.join()
    result["descriptors_more"] = daemon.descriptors_more()
    result["memory_kib"] = daemon.memory_kib()
    print(f"▸ {kind.__name__}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


def main():
    path, process, plugin, config, prefix, register, *counts = sys.argv[1:]
    messages, idle, dripping, descriptors, count = map(int, counts)
    adds = Adds(Network(plugin, config), prefix, register)
    # What the daemon opens for its first pods and keeps is not counted.
    adds.some(2)
    daemon = Daemon(int(process))
    # Half before and half behind, as what else the machine does may change.
    before, refused = adds.some(count // 2)
    report = {"memory_kib": daemon.memory_kib()}
    kinds = report["kinds"] = {}
    for kind, number in (
        (bad_clients.messages, messages),
        (bad_clients.idle, idle),
        (bad_clients.dripping, dripping),
        (bad_clients.lengths, A_FEW),
        (bad_clients.descriptors, descriptors),
    ):
        kinds[kind.__name__] = meanwhile(adds, count, daemon, kind, path, number)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    report["mode"] = f"{mode:04o}"
    os.chmod(path, 0o666)
    try:
        kinds["strangers"] = meanwhile(adds, count, daemon, bad_clients.strangers, path, A_FEW, NOBODY)
    finally:
        os.chmod(path, mode)
    behind, refused_behind = adds.some(count - count // 2)
    report["quiet"] = summary(before + behind, refused + refused_behind)
    print(json.dumps(report))


if __name__ == "__main__":
    main()

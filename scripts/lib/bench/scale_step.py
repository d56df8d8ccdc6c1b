"""Steps of the scale benchmark: what each takes, and what it does to a flow meanwhile.

Usage: scale_step.py step FILE NAME PID SOCKET CONDITION COMMAND…
       scale_step.py kernel FILE NAME COMMAND…
       scale_step.py report FILE FLOW KERNEL_FLOW

`step` runs the command and then asks the daemon until every worker forwards by what was asked for:
routes=N or routes<N of the kernel's, peers=N, or `answered`, if the command ends only then. FILE gets
a line of JSON. The command `sync COUNT CHANGED` tells the daemon of so many peers, as the cluster's
agent does, of which CHANGED have another prefix. `kernel` is the same without a
daemon. `report` prints a table; FLOW and KERNEL_FLOW are files of scale_flow.py.
"""

import array
import bisect
import json
import os
import socket
import struct
import subprocess
import sys
import time

from control_socket import Client, encoded

IDLE = "nothing"
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.01
# A step's flow is looked at for so long after it: old tables are freed then.
AFTERWARDS_NS = 300_000_000
# What no change may make a datagram wait.
GOAL_NS = 1_000_000
# Datagrams that wait within so long of one another wait for the same thing.
ONE_STALL_NS = 5_000_000
NAN = float("nan")


def holds(condition, status):
    if condition == "answered":
        return True
    routes = (status["kernel_routes"] or {"taken": 0})["taken"]
    for word, value in (("routes", routes), ("peers", status["peers"])):
        if condition.startswith(f"{word}="):
            return value == int(condition.split("=")[1])
        if condition.startswith(f"{word}<"):
            return value < int(condition.split("<")[1])
    raise SystemExit(f"no condition: {condition}")


def forwards(condition, status):
    return holds(condition, status) and all(
        worker["epoch"] >= status["epoch"] for worker in status["workers"]
    )


def longest_turn(status):
    return max(worker.get("longest_turn_us", -1) for worker in status["workers"])


def memory_kb(pid, field):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def threads(pid):
    """Of the control thread, and of the first worker: nanoseconds run, nanoseconds kept waiting."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as file:
            name = file.read().strip()
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            run, waited, _ = map(int, file.read().split())
        if int(task) == int(pid):
            name = "control"
        found[name] = (run, waited)
    return found["control"], found["worker-0"]


def kernel_kb():
    """What the kernel has in slabs and pages of its own: tables grow in both."""
    fields = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, value = line.split(":")
            fields[name] = int(value.split()[0])
    return fields["Slab"] + fields["VmallocUsed"]


def step(file, name, pid, path, condition, *command):
    client = Client(path)
    run = prepared(client, command)
    client.ask("status")
    before, control, worker = memory_kb(pid, "VmRSS"), *threads(pid)
    with open(f"/proc/{pid}/clear_refs", "w") as peak:
        peak.write("5")
    begin = time.time_ns()
    run()
    commanded = time.time_ns()
    turns = []
    while True:
        status = client.ask("status")
        turns.append(longest_turn(status))
        if forwards(condition, status):
            break
        if time.time_ns() > commanded + PATIENCE_SECONDS * 1_000_000_000:
            raise SystemExit(f"{name}: no {condition} within {PATIENCE_SECONDS} s: {status}")
        time.sleep(POLL_SECONDS)
    end = time.time_ns()
    time.sleep(AFTERWARDS_NS / 1e9)
    turns.append(longest_turn(client.ask("status")))
    (control_after, _), (_, waited) = threads(pid)
    write(
        file,
        name=name,
        begin=begin,
        end=end,
        command_ms=(commanded - begin) / 1e6,
        forwards_ms=(end - begin) / 1e6,
        rss_kb=(before, memory_kb(pid, "VmRSS"), memory_kb(pid, "VmHWM")),
        control_ms=(control_after - control[0]) / 1e6,
        waited_us=(waited - worker[1]) / 1e3,
        turn_us=max(turns),
    )


def prepared(client, command):
    if command[0] == "sync":
        body = encoded("sync-peers", sync(*map(int, command[1:])))
        return lambda: client.send("sync-peers", body) and sys.exit("peers are refused")
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def kernel(file, name, *command):
    before, begin = kernel_kb(), time.time_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    end = time.time_ns()
    took = (end - begin) / 1e6
    time.sleep(AFTERWARDS_NS / 1e9)
    write(file, name=name, begin=begin, end=end, command_ms=took, kernel_kb=kernel_kb() - before)


def write(file, **line):
    with open(file, "a") as lines:
        lines.write(json.dumps(line) + "\n")


def sync(count, changed):
    """Each peer has two addresses of IPv4 and 2^64 of IPv6, behind the router."""
    peers = []
    for number in range(count):
        pods = 0xC6121000 + 2 * number
        v4 = socket.inet_ntoa(struct.pack("!I", pods))
        net = number if number >= changed else number + 0x8000
        peers.append(
            {
                "name": f"node-{number}",
                "address": socket.inet_ntoa(struct.pack("!I", 0xC6130001 + number)),
                "prefixes": [f"{v4}/31", f"fd00:18:1000:{net:x}::/64"],
            }
        )
    return {"source": "kubernetes", "complete": True, "peers": peers, "gone": []}


class Flow:
    def __init__(self, path):
        data = array.array("q")
        with open(path, "rb") as file:
            data.frombytes(file.read())
        self.sent, self.took, self.number = data[1::3], data[2::3], data[0::3]

    def between(self, begin, end):
        """Worst and 99.9th percentile of the time under way in microseconds; lost, of how many."""
        first = bisect.bisect_left(self.sent, begin)
        last = bisect.bisect_right(self.sent, end)
        took = sorted(self.took[first:last])
        if not took:
            return NAN, NAN, 0, 0
        count = self.number[last - 1] - self.number[first] + 1
        return took[-1] / 1e3, took[len(took) * 999 // 1000] / 1e3, count - len(took), count

    def stalls(self, begin, end):
        """How often one of them, or several in a row, waited longer than the goal."""
        first = bisect.bisect_left(self.sent, begin)
        last = bisect.bisect_right(self.sent, end)
        late = [self.sent[at] for at in range(first, last) if self.took[at] > GOAL_NS]
        return sum(
            at == 0 or sent - late[at - 1] > ONE_STALL_NS for at, sent in enumerate(late)
        )


def report(file, *flows):
    with open(file) as lines:
        steps = [json.loads(line) for line in lines]
    ours, kernels = (Flow(path) for path in flows)
    print(
        f"{'step':<34} {'command':>9} {'forwards':>9} {'control':>9} {'RSS, MB (peak)':>19}"
        f" {'turn':>8} {'kept off':>9} {'worst':>8} {'p99.9':>8} {'>1 ms':>6} {'lost':>12} {'bridge':>8}"
    )
    print(
        f"{'':<34} {'ms':>9} {'ms':>9} {'CPU ms':>9} {'':>19} {'us':>8} {'us':>9} {'us':>8} {'us':>8} {'':>6} {'':>12} {'us':>8}"
    )
    stalls, seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for line in steps:
        is_ours = "rss_kb" in line
        window = line["begin"], line["end"] + AFTERWARDS_NS
        bridge = kernels.between(*window)
        flow = ours.between(*window) if is_ours else bridge
        worst, most, lost, count = flow
        late = (ours if is_ours else kernels).stalls(*window)
        if is_ours:
            stalls[line["name"] == IDLE] += late
            seconds[line["name"] == IDLE] += (window[1] - window[0]) / 1e9
        forwards, control, memory, turn, waited = "-", "-", "", "-", "-"
        if is_ours:
            forwards, control = f"{line['forwards_ms']:.1f}", f"{line['control_ms']:.1f}"
            before, after, peak = (kb / 1024 for kb in line["rss_kb"])
            memory = f"{before:.0f} > {after:.0f} ({peak:.0f})"
            turn = "-" if line["turn_us"] < 0 else str(line["turn_us"])
            waited = f"{line['waited_us']:.0f}"
        elif "kernel_kb" in line:
            memory = f"{line['kernel_kb'] / 1024:+.1f}"
        print(
            f"{line['name']:<34} {line['command_ms']:>9.1f} {forwards:>9} {control:>9} {memory:>19}"
            f" {turn:>8} {waited:>9} {worst:>8.0f} {most:>8.0f} {late:>6} {f'{lost}/{count}':>12}"
            f" {bridge[0]:>8.0f}"
        )
    print(
        f"Waits over 1 ms: {stalls[False]} in {seconds[False]:.1f} s of changes,"
        f" {stalls[True]} in {seconds[True]:.1f} s of nothing"
    )


if __name__ == "__main__":
    {"step": step, "kernel": kernel, "report": report}[sys.argv[1]](*sys.argv[2:])

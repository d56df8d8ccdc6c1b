"""What CPU time a measurement took, and how much of the machine others had meanwhile.

Usage: meter.py begin STATE PID [DIRECTORY]    notes what stands in STATE
       meter.py end STATE PID [DIRECTORY]      prints {seconds, cpu_seconds, foreign} since then

Ours are the process PID, those that a file in DIRECTORY begins with (a lab's pids), and all that descend
from them; the kernel's threads are nobody's. `foreign` is what all others took, and what the hypervisor
withheld, in parts of all CPUs' time; `cpu_seconds` is what the machine was busy for less what others took:
our processes, and the kernel's interrupts and threads on their behalf.
"""

import json
import os
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
# Columns of /proc/stat.
USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL = 0, 1, 2, 5, 6, 7
KTHREADD = 2


def processes():
    """Of each: parent, when it began, its own ticks, and those of its children that have ended."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        found[int(name)] = (int(fields[1]), int(fields[19]), own, ended)
    return found


def state():
    with open("/proc/stat") as file:
        machine = [int(word) for word in file.readline().split()[1:9]]
    return {"time": time.monotonic(), "machine": machine, "processes": processes()}


def roots(pid, directory):
    found = {pid}
    for name in os.listdir(directory) if directory and os.path.isdir(directory) else ():
        with open(os.path.join(directory, name)) as file:
            found.add(int(file.read().split()[0]))
    return found


def descends(pid, found, ancestors):
    while pid in found and pid not in ancestors:
        pid = found[pid][0]
    return pid in ancestors


def taken(before, after, pids):
    """Ticks that these took, with their children that have ended. A process of another start is another."""
    ticks = 0
    for pid in pids:
        _, began, own, ended = after[pid]
        was = before.get(pid)
        same = was is not None and was[1] == began
        ticks += own + ended - (was[2] + was[3] if same else 0)
    return ticks


def measured(before, after, ours, cpus):
    """What `end` prints, of two states; OURS are the ancestors of what is ours."""
    was, now = before["processes"], after["processes"]
    mine = [pid for pid in now if descends(pid, now, ours)]
    others = [pid for pid in now if pid not in mine and not descends(pid, now, {KTHREADD})]
    spent = [late - early for early, late in zip(before["machine"], after["machine"])]
    # A process's ticks include interrupts that it ran meanwhile, which the machine counts apart.
    busy = sum(spent[column] for column in (USER, NICE, SYSTEM, IRQ, SOFTIRQ))
    # A child of theirs that ended meanwhile brings the ticks of before, too: no more than ours leave.
    foreign = min(taken(was, now, others), max(0, busy - taken(was, now, mine)))
    seconds = after["time"] - before["time"]
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": max(0, busy - foreign) / TICK,
        "foreign": round((foreign + spent[STEAL]) / TICK / seconds / cpus, 4),
    }


def main():
    command, path, pid, *directory = sys.argv[1:]
    if command == "begin":
        with open(path, "w") as file:
            json.dump(state(), file)
        return
    after = state()
    with open(path) as file:
        before = json.load(file)
    before["processes"] = {int(pid): entry for pid, entry in before["processes"].items()}
    ours = roots(int(pid), *(directory or [None]))
    print(json.dumps(measured(before, after, ours, os.cpu_count())))


if __name__ == "__main__":
    main()

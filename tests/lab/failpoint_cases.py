"""Every fault at every place of failpoint::PLACES, on nodes of their own.

Usage: failpoint_cases.py firsts|pods|restarts|drains LAB BINARIES PLACES [ONLY]

`firsts`: the first start of a node fails; it leaves nothing. `pods`: an ADD, or a DEL after an ADD, meets the fault; then one DEL without it leaves nothing. `restarts`:
the start, the end, or the hand-over of descriptors meets it; the pods that are there stay as they are.
`drains`: the end of a node that is drained meets it; one more drain leaves nothing. PLACES is the source
with the list. ONLY is a part of the names of the cases that are wanted.

Prints a line for each case: `ok NAME`, `skip NAME: REASON` or `not ok NAME: REASON`.
"""

import os
import queue
import re
import signal
import sys
import threading

from failpoint_node import HOST_LOCAL, Node, Pod, wait_for

NODES = 4
# Longer than a plugin waits for the daemon, and longer than it is allowed to take.
DAEMON_IS_LATE, PLUGIN_IS_LATE = "delay:4200", "delay:6000"

# Places by what meets them; one that ends in a dash stands for all that begin so.
PLUGIN_ADD = ("cni-ipam-", "cni-add-", "call-reserve-sent", "call-attach-sent", "cni-undo")
PLUGIN_DEL = ("call-detach-sent", "cni-del-")
PLUGIN_AWAY = ("queue-",)
DAEMON_BOTH = ("journal-write", "journal-sync", "change-")
DAEMON_ADD = ("add-", "store-keep", "supervise-kept") + DAEMON_BOTH
DAEMON_DEL = ("del-detach", "del-detach-done", "del-port-", "store-forget") + DAEMON_BOTH
QUEUE_AT_START = ("start-journal", "start-queue-emptied")
QUEUE = ("del-queued-done",)
FIRST = ("start-",)
START = ("start-", "journal-read", "journal-fresh", "journal-replace", "journal-room", "supervise-start",
         "supervise-ended")
ADJUST = ("cni-adjust-",)
STOP = ("stop-",)
DRAIN = ("drain-",)
ALL = (PLUGIN_ADD, PLUGIN_DEL, PLUGIN_AWAY, DAEMON_ADD, DAEMON_DEL, QUEUE, START, ADJUST, STOP, DRAIN)

LATE_DAEMON_ADD = ("add-reserve", "add-attach", "add-attach-done", "change-publish", "journal-sync")
LATE_DAEMON_DEL = ("del-detach", "del-detach-done")
LATE_PLUGIN_ADD = ("cni-add-link", "cni-add-attached")
LATE_PLUGIN_DEL = ("cni-del-removed",)


class Unrun(Exception):
    """Why a case cannot be run here."""


class Case:
    def __init__(self, do, name, place, fault, number):
        self.do, self.place, self.fault, self.number = do, place, fault, number
        self.name = f"{name}, {place}: {fault}"
        self.text = f"{place}={fault}"

    def ends_daemon(self):
        return self.fault == "kill" and self.do in (daemon_in_add, daemon_in_del, start, stop)


class Cases:
    def __init__(self, source):
        self.places, self.list = places(source), []

    def late(self, do, name, wanted, fault):
        for place in wanted:
            self.list.append(Case(do, name, place, fault, len(self.list)))

    def all(self, do, name, wanted, faults=("error", "kill")):
        for place, may_fail in self.places:
            for fault in faults:
                if is_of(place, wanted) and (may_fail or fault == "kill"):
                    self.list.append(Case(do, name, place, fault, len(self.list)))


def places(source):
    """Name, and whether something can fail there."""
    with open(source, encoding="utf-8") as file:
        found = re.findall(r'^    (at|sure)\("([a-z-]+)"', file.read(), re.M)
    unmet = [name for _, name in found if not any(is_of(name, wanted) for wanted in ALL)]
    assert not unmet, f"no case meets {unmet}"
    return [(name, kind == "at") for kind, name in found]


def is_of(place, wanted):
    return any(place == name or (name.endswith("-") and place.startswith(name)) for name in wanted)


# Those that wait come first.
def cases_of(part, source):
    cases = Cases(source)
    if part == "firsts":
        cases.all(first_start, "the first start", FIRST, faults=("error",))
    elif part == "pods":
        cases.late(plugin_in_add, "ADD, the plugin", LATE_PLUGIN_ADD, PLUGIN_IS_LATE)
        cases.late(plugin_in_del, "DEL, the plugin", LATE_PLUGIN_DEL, PLUGIN_IS_LATE)
        cases.late(daemon_in_add, "ADD, the daemon", LATE_DAEMON_ADD, DAEMON_IS_LATE)
        cases.late(daemon_in_del, "DEL, the daemon", LATE_DAEMON_DEL, DAEMON_IS_LATE)
        cases.all(plugin_in_add, "ADD, the plugin", PLUGIN_ADD)
        cases.all(plugin_in_del, "DEL, the plugin", PLUGIN_DEL)
        cases.all(plugin_while_away, "DEL while no daemon runs, the plugin", PLUGIN_AWAY)
        cases.all(daemon_in_add, "ADD, the daemon", DAEMON_ADD)
        cases.all(daemon_in_del, "DEL, the daemon", DAEMON_DEL)
        cases.all(daemon_with_a_queue, "DEL that waited, the daemon", QUEUE)
        cases.all(start_with_a_queue, "start after a DEL, the daemon", QUEUE_AT_START)
    elif part == "restarts":
        cases.all(start, "start", START)
        cases.all(adjust, "descriptors were lost, the plugin", ADJUST)
        cases.all(stop, "stop", STOP)
    else:
        cases.all(drain, "drain", DRAIN)
    return cases.list


# One pod.


def pod_of(node, case):
    """All kinds of pods have their turn: with addresses of host-local, bridged, named by a process."""
    by_host_local = case.place.startswith("cni-ipam-") or case.number % 2 == 0
    if case.place.startswith("cni-ipam-") and not node.has_host_local:
        raise Unrun(f"there is no {HOST_LOCAL}")
    return Pod(
        node, f"p{case.number}",
        by_host_local=by_host_local and node.has_host_local,
        is_bridged=case.number % 3 == 0,
        by_process=case.number % 5 < 2,
    )


def plugin_in_add(node, case):
    pod = pod_of(node, case)
    # What is taken back is taken back of an ADD that failed late.
    fault = f"cni-add-attached=error,{case.text}" if case.place == "cni-undo" else case.text
    plugin_met(case, pod.cni("ADD", fault))
    leaves_nothing(node, pod, case)


def plugin_in_del(node, case):
    pod = pod_of(node, case)
    pod.add()
    plugin_met(case, pod.cni("DEL", case.text))
    leaves_nothing(node, pod, case)


def plugin_while_away(node, case):
    pod = pod_of(node, case)
    pod.add()
    node.end_program()
    plugin_met(case, pod.cni("DEL", case.text))
    node.daemon()
    node.adjust()
    leaves_nothing(node, pod, case)


def daemon_in_add(node, case):
    pod = pod_of(node, case)
    node.plan(case.text)
    # Every second ADD that fails so does not take back what it did.
    pod.cni("ADD", "cni-undo=kill" if case.number % 4 < 2 else "")
    daemon_met(node, case)
    leaves_nothing(node, pod, case)


def daemon_in_del(node, case):
    pod = pod_of(node, case)
    pod.add()
    node.plan(case.text)
    pod.cni("DEL")
    daemon_met(node, case)
    leaves_nothing(node, pod, case)


def daemon_with_a_queue(node, case):
    pod = pod_of(node, case)
    pod.add()
    daemon = node.daemon()
    os.kill(daemon, signal.SIGSTOP)
    pod.delete()
    node.plan(case.text)
    os.kill(daemon, signal.SIGCONT)
    daemon_met(node, case)
    leaves_nothing(node, pod, case)


def start_with_a_queue(node, case):
    pod = pod_of(node, case)
    pod.add()
    node.end_program()
    pod.delete()
    node.plan(case.text)
    node.daemon()
    daemon_met(node, case)
    node.adjust()
    leaves_nothing(node, pod, case)


def plugin_met(case, answer):
    if case.fault == "kill":
        assert answer.code == -signal.SIGKILL, f"the plugin was not killed: exit code {answer.code}"
    elif case.fault == "error":
        assert f"the failpoint {case.place}" in answer.log, f"the plugin did not meet it: {answer.log}"
    else:
        assert "did not end within" in answer.said, f"the plugin was not late: {answer.said}"


def daemon_met(node, case):
    wait_for(case.place, lambda: "" if node.has_happened() else "it was not met", 10)


def leaves_nothing(node, pod, case):
    """One DEL, at once, whoever is there to hear of it; of some pods after their end."""
    if case.number % 7 == 6:
        pod.end()
        pod.delete()
    else:
        pod.delete()
        assert pod.interfaces() == ["lo"], f"interfaces of the pod: {pod.interfaces()}"
    # What a supervisor that died has lost.
    if case.place.startswith("supervise-"):
        node.daemon()
        node.adjust()
    node.is_as_before()
    if not pod.has_ended:
        pod.add()
        pod.delete()
        pod.end()


# The node.


def first_start(node, case):
    assert node.first_start(case.text) == 1, "it did not fail"
    leaves_no_trace(node)


def start(node, case):
    node.plan(case.text)
    node.end_daemon(signal.SIGKILL)
    node.daemon()
    daemon_met(node, case)
    if case.text == "journal-read=error":
        # Until the next start it knows that there may be more leases.
        node.daemon()
        node.end_daemon(signal.SIGKILL)
    comes_back(node)


def adjust(node, case):
    node.end_program()
    node.daemon()
    assert node.adjust(case.text) != 0, "the plugin did not meet it"
    comes_back(node)


def stop(node, case):
    node.plan(case.text)
    node.end_daemon(signal.SIGTERM)
    daemon_met(node, case)
    comes_back(node)


def comes_back(node):
    node.daemon()
    # It opens what a supervisor that died has lost; otherwise there is nothing to do.
    assert node.adjust() == 0, "the pods' interfaces are not open again"
    node.is_as_before()
    node.serves()


def drain(node, case):
    pod = pod_of(node, case)
    pod.add()
    node.plan(case.text)
    node.drain()
    daemon_met(node, case)
    node.daemon()
    assert node.drain() == 0, "the second drain failed"
    wait_for("the end", lambda: "it runs" if node.runs() else "")
    assert pod.interfaces() == ["lo"], f"interfaces of the pod: {pod.interfaces()}"
    leaves_no_trace(node)
    node.pods_are_gone()


def leaves_no_trace(node):
    assert node.links() == ["eth0", "lo", "wire"], f"interfaces of the node: {node.links()}"
    assert not node.tables(), f"nftables: {node.tables()}"
    assert not node.own_routes(), f"routes: {node.own_routes()}"
    assert not node.has_xdp(), "an XDP program"


class Run:
    def __init__(self, part, lab, binaries):
        self.lock = threading.Lock()
        self.nodes = [Node(lab, binaries, f"{part[0]}{number}") for number in range(NODES)]
        self.alone = Node(lab, binaries, f"{part[0]}alone", is_supervised=False)

    def all(self, cases):
        """Every node takes the next case when it is done with one. One whose daemon has no supervisor takes
        those that differ there."""
        left, left_alone = queue.SimpleQueue(), queue.SimpleQueue()
        for case in cases:
            left.put(case)
            if case.ends_daemon() and not case.place.startswith(("supervise-", "store-")):
                left_alone.put(case)
        work = [(node, left) for node in self.nodes] + [(self.alone, left_alone)]
        threads = [threading.Thread(target=self.work, args=each) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(self, node, left):
        while True:
            try:
                case = left.get_nowait()
            except queue.Empty:
                break
            name = case.name if node.is_supervised else f"{case.name}, without a supervisor"
            self.judge(name, node, self.one, case)
        if node.is_ready():
            self.judge("after all of them, a restart", node, self.last)

    def one(self, node, case):
        try:
            if case.do is not first_start:
                node.prepare()
            case.do(node, case)
        finally:
            node.forget_fault()

    def last(self, node):
        node.end_daemon(signal.SIGKILL)
        comes_back(node)
        assert not node.panics(), node.panics()

    def judge(self, name, node, do, *arguments):
        try:
            do(node, *arguments)
            line = f"ok {name}"
        except Unrun as why:
            line = f"skip {name}: {why}"
        # Whatever it is, the next case has its own node again.
        except Exception as why:
            line = f"not ok {name} ({node.name}): {type(why).__name__} {why}".replace("\n", " ")
            node.forget()
        with self.lock:
            print(line, flush=True)


def main():
    part, lab, binaries, source = sys.argv[1:5]
    only = sys.argv[5] if len(sys.argv) > 5 else ""
    cases = [case for case in cases_of(part, source) if only in case.name]
    if cases:
        Run(part, lab, binaries).all(cases)


if __name__ == "__main__":
    main()

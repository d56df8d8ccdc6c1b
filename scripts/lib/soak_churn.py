"""Pods that come and go, in the ways in which they do, and what stays of them.

Usage: soak_churn.py churn PLUGIN CONFIG PREFIX REGISTER [--count N] [--seconds S] [--at-once N]
                     [--faults SHARE]
       soak_churn.py lost PLUGIN CONFIG PREFIX REGISTER [--count N] [--at-once N]
       soak_churn.py away PLUGIN CONFIG PREFIX REGISTER [--count N] --daemon PID

It runs in the node's network namespace. Each pod has a namespace PREFIXNAME, written into REGISTER
before it is made. `churn`: ADD, DEL and the end of the namespace; in a SHARE of them ADD or DEL is killed at a
random moment, and a DEL follows; all of the first N at once are left in peace, to learn what an ADD takes. A
SHARE of 1 kills ADDs alone. `lost`: ADD and the end of the namespace, without DEL. `away`: COUNT
ADDs at once, amid which the daemon is killed, and then all their DELs.

Prints one JSON object: what was done, what failed, and what stayed: interfaces after DEL, addresses that
two pods had at the same time, namespaces that did not end.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import random
import signal
import statistics
import sys
import threading
import time

import soak_namespaces as namespaces
from soak_plugin import Network

# A kill comes within this many times what an ADD takes when nobody kills it: it meets any step, or none.
BEFORE_KILL = 1.2
# Until a namespace has ended: the kernel removes them one after the other.
PATIENCE_S = 20


class Pods:
    def __init__(self, options):
        self.options = options
        self.network = Network(options.plugin, options.config)
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.reasons = collections.Counter()
        self.addresses = {}
        self.marks = namespaces.marks()
        self.times = []

    def make(self, kind):
        with self.lock:
            pod = f"{self.options.prefix}{kind}{next(self.numbers)}"
        namespaces.add(pod, self.options.register)
        namespaces.mark(pod)
        return pod

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def fails(self, what, answer):
        with self.lock:
            self.counts[what] += 1
            self.reasons[f"{what}: {answer.reason}"] += 1

    # Its addresses are its own from the end of ADD to the beginning of DEL.
    def holds(self, pod, answer):
        with self.lock:
            for address in answer.addresses():
                if address in self.addresses:
                    self.counts["duplicates"] += 1
                self.addresses[address] = pod

    def lets_go(self, pod):
        with self.lock:
            self.addresses = {each: by for each, by in self.addresses.items() if by != pod}

    def add(self, pod, kill_after=None):
        answer = self.network.add(pod, kill_after)
        self.count("adds")
        if answer.succeeded:
            self.holds(pod, answer)
            if kill_after is None:
                self.times.append(answer.seconds)
        elif answer.was_killed:
            self.count("killed")
        else:
            self.fails("adds_failed", answer)
        return answer

    def delete(self, pod, result=None, kill_after=None):
        self.lets_go(pod)
        answer = self.network.delete(pod, result, kill_after)
        if answer.was_killed:
            self.count("killed")
            answer = self.network.delete(pod)
        self.count("dels")
        if not answer.succeeded:
            self.fails("dels_failed", answer)
        elif "eth0" in namespaces.interfaces(pod):
            self.count("interfaces_left")
        return answer

    def end(self, pod):
        namespaces.delete(pod)

    def namespaces_left(self):
        deadline = time.monotonic() + PATIENCE_S
        while namespaces.marks() > self.marks and time.monotonic() < deadline:
            time.sleep(0.1)
        return namespaces.marks() - self.marks


def churn(pods):
    options = pods.options
    deadline = time.monotonic() + options.seconds if options.seconds else None

    def one(number):
        if ended or (deadline and time.monotonic() > deadline):
            return
        pod = pods.make("c")
        try:
            moment, kills_add = None, options.faults >= 1 or random.random() < 0.5
            if number >= options.at_once and random.random() < options.faults:
                moment = random.uniform(0, BEFORE_KILL * statistics.median(pods.times))
            answer = pods.add(pod, moment if kills_add else None)
            result = answer.result if answer.succeeded else None
            pods.delete(pod, result, None if kills_add else moment)
        finally:
            pods.end(pod)
        progress(number, options)

    each(one, options)


def lost(pods):
    def one(number):
        if ended:
            return
        pod = pods.make("l")
        try:
            pods.add(pod)
            pods.lets_go(pod)
        finally:
            pods.end(pod)
        progress(number, pods.options)

    each(one, pods.options)


def away(pods):
    names = [pods.make("a") for _ in range(pods.options.count)]
    some_added = threading.Semaphore(0)

    def one(pod):
        if pods.add(pod).succeeded:
            some_added.release()

    try:
        with concurrent.futures.ThreadPoolExecutor(len(names)) as threads:
            adds = [threads.submit(one, pod) for pod in names]
            for _ in range(random.randrange(1, len(names) // 2)):
                some_added.acquire(timeout=5)
            os.kill(pods.options.daemon, signal.SIGKILL)
            for add in adds:
                add.result()
            for deletion in [threads.submit(pods.delete, pod) for pod in names]:
                deletion.result()
    finally:
        for pod in names:
            pods.end(pod)


def each(one, options):
    """Calls it for each number, so many at once; the first exception ends it."""
    numbers = itertools.count() if options.seconds else range(options.count)
    with concurrent.futures.ThreadPoolExecutor(options.at_once) as threads:
        running = set()
        for number in numbers:
            running.add(threads.submit(one, number))
            if len(running) >= options.at_once:
                done, running = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for call in done:
                    call.result()
            if ended or (options.seconds and time.monotonic() - started > options.seconds):
                break
        for call in running:
            call.result()


def progress(number, options):
    total = "" if options.seconds else f" of {options.count}"
    if (number + 1) % 50 == 0:
        print(f"▸ {number + 1}{total} pods", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("churn", "lost", "away"))
    for name in ("plugin", "config", "prefix", "register"):
        parser.add_argument(name)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--faults", type=float, default=0)
    parser.add_argument("--daemon", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    pods = Pods(options)
    {"churn": churn, "lost": lost, "away": away}[options.command](pods)
    names = ("adds", "adds_failed", "dels", "dels_failed", "killed", "duplicates", "interfaces_left")
    result = {name: pods.counts[name] for name in names}
    result["namespaces_left"] = pods.namespaces_left()
    result["reasons"] = dict(pods.reasons.most_common(5))
    result["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(result))


ended = []
started = time.monotonic()
if __name__ == "__main__":
    main()

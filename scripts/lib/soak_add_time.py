"""How long an ADD takes, beside a reference: one after the other, and several at once.

Usage: soak_add_time.py OURS CONFIG THEIRS CONFIG PREFIX REGISTER SERIAL ROUNDS AT_ONCE

OURS and THEIRS are plugins, each with its network's configuration. It runs in the node's network
namespace. Each pod gets a fresh namespace, which is no part of the time; from the execution of the
plugin to its end is. SERIAL pods of each, by turns; then ROUNDS of AT_ONCE pods of each, by turns.
What the kernel still removes of one pod when its DEL has ended would delay the next ADD: there is a pause
between. Prints one JSON object, in milliseconds.
"""

import concurrent.futures
import itertools
import json
import sys
import threading
import time

import soak_namespaces as namespaces
from soak_plugin import Network
from soak_traffic import percentile


PAUSE_S = 0.15
PAUSE_FOR_EACH_S = 0.05


def main():
    ours, ours_config, theirs, theirs_config, prefix, register, *counts = sys.argv[1:]
    serial, rounds, at_once = map(int, counts)
    networks = {"ours": Network(ours, ours_config), "theirs": Network(theirs, theirs_config)}
    numbers = itertools.count()
    one_by_one = {name: [] for name in networks}
    together = {name: [] for name in networks}

    def some(network, count, times):
        names = [f"{prefix}t{next(numbers)}" for _ in range(count)]
        for name in names:
            namespaces.add(name, register)
        barrier = threading.Barrier(count)
        answers = list(threads.map(lambda name: timed_add(network, name, barrier), names))
        times.extend(answer.seconds * 1000 for answer in answers)
        for name, answer in zip(names, answers):
            ended = network.delete(name, answer.result)
            if not ended.succeeded:
                sys.exit(f"DEL of {network.program} failed: {ended.reason}")
            namespaces.delete(name)
        time.sleep(PAUSE_S + PAUSE_FOR_EACH_S * count)

    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        for number in range(serial):
            for name, network in networks.items():
                some(network, 1, one_by_one[name])
            say(number, serial, "one after the other")
        for number in range(rounds):
            for name, network in networks.items():
                some(network, at_once, together[name])
            say(number, rounds, f"{at_once} at once")
    print(
        json.dumps(
            {
                name: {
                    "serial_p50_ms": round(percentile(sorted(one_by_one[name]), 50), 1),
                    "at_once_p99_ms": round(percentile(sorted(together[name]), 99), 1),
                }
                for name in networks
            }
        )
    )


def timed_add(network, name, barrier):
    barrier.wait()
    answer = network.add(name)
    if not answer.succeeded:
        sys.exit(f"ADD of {network.program} failed: {answer.reason}")
    return answer


def say(number, total, how):
    if (number + 1) % 10 == 0 or number + 1 == total:
        print(f"▸ {number + 1} of {total}, {how}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

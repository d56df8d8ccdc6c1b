"""The rate at which a way loses half a percent of the datagrams, as RFC 2544 searches it, in bounded trials.

Usage: pdr.py RECEIVER SECONDS COMMAND…

COMMAND is vswitch-load's `datagrams` where it sends, to which `--rate` and `--seconds` are appended; what
arrives is counted by eth0 of the network namespace RECEIVER. Prints {value, offered, trials, sender_bound}: value is
what arrived a second at the highest rate that passed. A sender that cannot send faster ends the search.
"""

import json
import subprocess
import sys
import time

LOSS = 0.005
# The search ends when the lowest rate that failed is so little above the highest that passed, or after so many trials.
WIDTH = 0.02
TRIALS = 12
# A rate that passes by chance does not pass twice: the last one is tried again, and if it fails somewhat less.
LESS = 0.97
# A sender is as fast as it is told if it reaches that part of it.
REACHED = 0.98
# What is still under way when the sender has ended.
DRAIN_SECONDS = 0.05


class Trial:
    """What a trial at RATE came to, datagrams a second; RATE is None for as fast as can be."""

    def __init__(self, rate, sent, arrived):
        self.rate, self.sent, self.arrived = rate, sent, min(arrived, sent)

    @property
    def passes(self):
        return self.arrived >= self.sent * (1 - LOSS)

    @property
    def sender_bound(self):
        return self.rate is None or self.sent < self.rate * REACHED


def search(attempt):
    """ATTEMPT makes a trial of a rate. The best trial, how many there were, and whether the sender was the bound."""
    flood = attempt(None)
    trials = [flood]
    best = Trial(0, 0, 0)
    if flood.passes:
        return flood, 1, True
    low, high, rate = 0.0, flood.sent, flood.arrived
    while len(trials) < TRIALS and high - low > high * WIDTH:
        trial = attempt(rate)
        trials.append(trial)
        if trial.passes:
            best, low = trial, max(low, trial.sent)
            if trial.sender_bound:
                return best, len(trials), True
            # What arrives of a flood is near the bound; beyond that, steps, then halves.
            rate = min(rate * 1.25, (low + high) / 2) if high == flood.sent else (low + high) / 2
        else:
            high = min(high, rate)
            rate = (low + high) / 2 if low else high * 0.75
    return (*confirmed(best, attempt, trials), False)


def confirmed(best, attempt, trials):
    """A trial of the best rate, or of somewhat less, that passes once more; at most four."""
    rate = best.rate
    for _ in range(4):
        if not rate:
            break
        trial = attempt(rate)
        trials.append(trial)
        if trial.passes:
            return trial, len(trials)
        rate *= LESS
    return Trial(0, 0, 0), len(trials)


def main():
    receiver, seconds, *command = sys.argv[1:]

    def attempt(rate):
        at = [] if rate is None else ["--rate", str(max(1, int(rate)))]
        before = received(receiver)
        told = json.loads(subprocess.check_output([*command, *at, "--seconds", seconds]))
        time.sleep(DRAIN_SECONDS)
        arrived = received(receiver) - before
        return Trial(rate, told["sent"] / told["seconds"], arrived / told["seconds"])

    best, trials, bound = search(attempt)
    print(json.dumps({"value": best.arrived, "offered": best.sent, "trials": trials, "sender_bound": bound}))


def received(namespace):
    """Datagrams that its interface has had."""
    told = subprocess.check_output(["ip", "-n", namespace, "-json", "-stats", "link", "show", "dev", "eth0"])
    return json.loads(told)[0]["stats64"]["rx"]["packets"]


if __name__ == "__main__":
    main()

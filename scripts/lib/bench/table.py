"""The table of a run's rows, and its summary for machines.

Usage: table.py SAMPLES SUMMARY

SAMPLES has a line of JSON for each figure: {measurement, side, value}. A row compares two sides of a
measurement by their medians. SUMMARY gets a list of {id, ours, peer, ratio, floor, goal, verdict}.
"""

import json
import statistics
import sys
from collections import defaultdict

OURS = "vswitchd"
KEYS = ("id", "what", "ours", "peer", "ratio", "spread", "floor", "goal", "verdict")


class Row:
    """A comparison with a peer; `sign` is 1 where more is better, -1 where less is."""

    def __init__(self, id, measurement, peer, what, unit, floor, goal, sign=1):
        self.id, self.measurement, self.peer, self.what = id, measurement, peer, what
        self.unit, self.floor, self.goal, self.sign = unit, floor, goal, sign

    def verdict(self, ratio):
        for name in ("goal", "floor"):
            bound = getattr(self, name)
            if bound is None or (ratio - bound) * self.sign >= 0:
                return name
        return "below"


def rows():
    for rules, floor, goal in ((1000, 3, 10), (5000, 10, 30)):
        flood = f"{rules} policy rules, 64 bytes, kpps"
        yield Row(f"B11-{rules}", f"flood-{rules}", "nft-stateless", flood, 1e3, floor, goal)
        yield Row(f"B11-{rules}-states", f"flood-{rules}", "nft-linear", flood, 1e3, None, None)
        for place, words in (("apart", "server beside the worker"), ("together", "both on one CPU")):
            made = f"{rules} rules, connections/s, {words}"
            name = f"connections-{rules}-{place}"
            yield Row(f"B12-{rules}-{place}", name, "nft-sets", made, 1, 0.7, 1.0)
            yield Row(f"B12-{rules}-{place}-linear", name, "nft-linear", made, 1, 0.7, 1.0)
    for place, words in (("apart", "server beside the worker"), ("together", "both on one CPU")):
        made = f"10,000 Services, connections/s, {words}"
        yield Row(f"B21-{place}", f"services-{place}", "kube-nft", made, 1, 0.7, 1.0)
        yield Row(f"B21-{place}-iptables", f"services-{place}", "kube-iptables", made, 1, 1.0, 5.0)
    changed = "one endpoint of 10,000 Services in force, ms"
    yield Row("B22", "in-force", "kube-nft", changed, 1, 1.0, 0.7, -1)
    yield Row("B22-iptables", "in-force", "kube-iptables", changed, 1, 1.0, 0.7, -1)


def main():
    samples, summary = sys.argv[1:]
    figures = defaultdict(list)
    with open(samples) as file:
        for line in file:
            sample = json.loads(line)
            figures[sample["measurement"], sample["side"]].append(sample["value"])
    done = [compared(row, figures) for row in rows() if (row.measurement, row.peer) in figures]
    with open(summary, "w") as file:
        json.dump([{key: row[key] for key in KEYS if key not in ("what", "spread")} for row in done], file, indent=1)
    show(done)


def compared(row, figures):
    ours, peer = figures[row.measurement, OURS], figures[row.measurement, row.peer]
    ratio = statistics.median(ours) / statistics.median(peer)
    return {
        "id": row.id,
        "what": row.what,
        "ours": statistics.median(ours) / row.unit,
        "peer": statistics.median(peer) / row.unit,
        "peer_name": row.peer,
        "ratio": ratio,
        "spread": f"{spread(ours):.0f}/{spread(peer):.0f} %",
        "floor": row.floor,
        "goal": row.goal,
        "verdict": row.verdict(ratio) if row.goal is not None else "-",
    }


def spread(values):
    """How far the extremes are from each other, in hundredths of the median."""
    return (max(values) - min(values)) / statistics.median(values) * 100


def show(done):
    form = "{:<22} {:<58} {:>9} {:>9} {:<14} {:>6} {:>9} {:>6} {:>5}  {}"
    print(form.format("row", "what", "ours", "peer", "", "ratio", "spread", "floor", "goal", "verdict"))
    for row in done:
        floor, goal = ("-" if row[key] is None else f"{row[key]:g}" for key in ("floor", "goal"))
        ours, peer = (f"{row[key]:,.1f}" if row[key] < 1000 else f"{row[key]:,.0f}" for key in ("ours", "peer"))
        print(
            form.format(
                row["id"], row["what"], ours, peer, row["peer_name"], f"{row['ratio']:.2f}",
                row["spread"], floor, goal, row["verdict"],
            )
        )


main()

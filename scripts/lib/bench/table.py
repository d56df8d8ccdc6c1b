"""The table of a run's rows, and its summary for machines.

Usage: table.py SAMPLES SUMMARY WORKER OTHER INTERRUPTS

WORKER is the CPU of vswitchd's worker, OTHER the one beside it; a NIC of the lab interrupts once in INTERRUPTS
microseconds, or for each frame that finds it idle if that is 0.
SAMPLES has a line of JSON for each measurement of a side: {measurement, side, value, …}, with what meter.py
prints, and `bytes` and `retransmits` where it moved bytes. A row compares two sides of a measurement by their
medians. SUMMARY gets a list of {id, ours, peer, ratio, floor, goal, verdict} with more keys beside. `verdict` is
goal, floor or below; null where nothing is asked for. `ratio` and `peer` are null where there is no peer,
`ratio` also where the peer's figure is zero and ours is not;
`bounds_of` tells whether floor and goal are of the ratio or of our figure.
"""

import json
import math
import statistics
import sys
from collections import defaultdict

from rows import rows


def main():
    samples, summary, worker, other, interrupts = sys.argv[1:]
    words = {"worker": worker, "other": other, "interrupts": moderation(interrupts)}
    figures = defaultdict(list)
    with open(samples) as file:
        for line in file:
            sample = json.loads(line)
            figures[sample["measurement"], sample["side"]].append(sample)
    done = [compared(row, figures) | {"what": row.what.format(**words)} for row in rows() if is_measured(row, figures)]
    with open(summary, "w") as file:
        json.dump(done, file, indent=1, allow_nan=False)
    show(done)


def moderation(interrupts):
    return "interrupts not moderated" if interrupts == "0" else f"an interrupt in {interrupts} us"


def is_measured(row, figures):
    return all((row.measurement, side) in figures for side in (row.ours, row.peer) if side)


def compared(row, figures):
    sides = [figures[row.measurement, side] for side in (row.ours, row.peer) if side]
    values = [[sample[row.figure] for sample in side] for side in sides]
    medians = [statistics.median(side) for side in values]
    ratio = quotient(*medians) if row.peer else None
    samples = [sample for side in sides for sample in side]
    return {
        "id": row.id,
        "ours": medians[0] / row.unit,
        "peer": medians[1] / row.unit if row.peer else None,
        "ratio": None if ratio is None or math.isinf(ratio) else ratio,
        "floor": row.floor,
        "goal": row.goal,
        "verdict": row.verdict(medians[0] / row.unit, ratio),
        "bounds_of": "ours" if row.absolute else "ratio",
        "peer_name": row.peer,
        "less_is_better": row.sign < 0,
        "rounds": len(sides[0]),
        "spread": [spread(side) for side in values],
        "cpu_seconds_per_gb": [per_gb(side) for side in sides],
        "retransmits": [median_of(side, "retransmits") for side in sides],
        "sender_bound": [any(sample.get("sender_bound") for sample in side) for side in sides],
        "foreign": max((sample.get("foreign", 0) for sample in samples), default=0),
        "noisy": sum(sample.get("noisy", False) for sample in samples),
    }


def quotient(ours, peer):
    """Of two zeros: they are equal."""
    if peer:
        return ours / peer
    return 1.0 if not ours else float("inf")


def spread(values):
    """How far the extremes are from each other, in parts of the median."""
    median = statistics.median(values)
    return (max(values) - min(values)) / median if median else 0.0


def per_gb(samples):
    """CPU seconds of the whole machine, less what others took, for 10^9 bytes that arrived."""
    each = [
        sample["cpu_seconds"] / sample["bytes"] * 1e9
        for sample in samples
        if sample.get("bytes") and "cpu_seconds" in sample
    ]
    return statistics.median(each) if each else None


def median_of(samples, key):
    each = [sample[key] for sample in samples if key in sample]
    return statistics.median(each) if each else None


HEAD = (
    "row", "what", "ours", "peer", "", "ratio", "spread", "floor", "goal", "verdict", "CPU s/GB", "sent again", "noisy",
)
LEFT = ("row", "what", "", "verdict")


def show(done):
    lines = [HEAD] + [cells(row) for row in done]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        aligned = (
            cell.ljust(width) if head in LEFT else cell.rjust(width) for head, cell, width in zip(HEAD, line, widths)
        )
        print("  ".join(aligned).rstrip())
    if any(any(row["sender_bound"]) for row in done):
        print("> more could not be sent: the way may take more")


def cells(row):
    return (
        row["id"], row["what"], *figures(row), row["peer_name"] or "",
        "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
        "/".join(f"{part * 100:.0f}" for part in row["spread"]) + " %",
        bound(row["floor"]), bound(row["goal"]), row["verdict"] or "-",
        both(row["cpu_seconds_per_gb"], "{:.2f}"), both(row["retransmits"], "{:.0f}"), str(row["noisy"] or ""),
    )


def figures(row):
    """Ours and the peer's."""
    bounds = row["sender_bound"] + [False]
    return [">" * bounds[at] + number(row[side]) for at, side in enumerate(("ours", "peer"))]


def number(value):
    if value is None:
        return "-"
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def bound(value):
    return "-" if value is None else f"{value:g}"


def both(values, form):
    """Of ours and of the peer; nothing where neither has one."""
    if all(value is None for value in values):
        return ""
    return "/".join("-" if value is None else form.format(value) for value in values)


if __name__ == "__main__":
    main()

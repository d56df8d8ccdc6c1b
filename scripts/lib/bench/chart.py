"""Draws a run's summary: a bar for each row that has a peer, with marks at its floor and its goal.

Usage: chart.py SUMMARY SVG [TITLE]

A bar reaches as far as ours is better than the peer, to the right of 1, or worse, to the left, on a scale on which
twice is as far as half; where less is better the ratio is turned over. Rows whose bounds are of our figure itself
are in the table alone.
"""

import json
import math
import sys
from xml.sax.saxutils import escape

COLOURS = {"goal": "#2e7d32", "floor": "#c98a00", "below": "#c62828", None: "#78909c"}
WORDS = {
    "goal": "reaches its goal",
    "floor": "above its floor",
    "below": "below its floor",
    None: "nothing is asked for",
}
LABELS, BARS, FIGURES, LINE, TOP, MARGIN = 780, 420, 90, 22, 78, 12
# The scale's ends, at least.
LEAST, MOST = 0.25, 4


def main():
    summary, svg, *title = sys.argv[1:]
    with open(summary) as file:
        rows = json.load(file)
    with open(svg, "w") as file:
        file.write(drawn(rows, *title))


def drawn(rows, title="vswitchd beside its peers"):
    rows = [row for row in rows if row["ratio"] and row["bounds_of"] == "ratio"]
    scale = Scale(rows)
    width, height = LABELS + BARS + FIGURES, TOP + LINE * len(rows) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(MARGIN, 20, title, size=15),
        *legend(),
        *axis(scale, height),
    ]
    for number, row in enumerate(rows):
        parts += bar(row, scale, TOP + LINE * number)
    return "\n".join([*parts, "</svg>", ""])


def better(row, value):
    """How many times as good as the peer a ratio is."""
    return 1 / value if row["less_is_better"] else value


class Scale:
    """From factors to places, by their logarithms."""

    def __init__(self, rows):
        factors = [LEAST, MOST]
        for row in rows:
            factors += [better(row, row[key]) for key in ("ratio", "floor", "goal") if row[key]]
        self.low = math.floor(math.log2(min(factors)))
        self.high = math.ceil(math.log2(max(factors)))

    def x(self, factor):
        return LABELS + (math.log2(factor) - self.low) / (self.high - self.low) * BARS

    def steps(self):
        return [2.0**power for power in range(self.low, self.high + 1)]


def bar(row, scale, y):
    factor = better(row, row["ratio"])
    ends = sorted((scale.x(1), scale.x(factor)))
    colour = COLOURS[row["verdict"]]
    against = f"{row['id']}: {row['what']} / {row['peer_name']}"
    parts = [
        text(LABELS - 8, y + 15, against, anchor="end"),
        f'<rect class="bar" x="{ends[0]:.1f}" y="{y + 4}" width="{max(1, ends[1] - ends[0]):.1f}" height="{LINE - 8}" fill="{colour}"/>',
        text(LABELS + BARS + 8, y + 15, f"{times(factor)}{' *' if row['noisy'] else ''}"),
    ]
    for key, width, dashes in (("floor", 1.5, ' stroke-dasharray="3 2"'), ("goal", 2.5, "")):
        if row[key]:
            x = scale.x(better(row, row[key]))
            parts.append(
                f'<line class="{key}" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 1}" y2="{y + LINE - 1}"'
                f' stroke="#000000" stroke-width="{width}"{dashes}/>'
            )
    return parts


def times(factor):
    return f"{factor:.2f}" if factor < 10 else f"{factor:.0f}"


def legend():
    x = MARGIN
    for verdict, words in WORDS.items():
        yield f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[verdict]}"/>'
        yield text(x + 17, 42, words)
        x += 30 + 7 * len(words)
    yield text(x, 42, "¦ floor   | goal   * disturbed by other programs")


def axis(scale, height):
    for factor in scale.steps():
        x = scale.x(factor)
        colour = "#000000" if factor == 1 else "#d0d0d0"
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - MARGIN}" stroke="{colour}"/>'
        yield text(x, TOP - 12, f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}", anchor="middle")
    yield text(LABELS - 40, TOP - 12, "times as good as the peer", anchor="end")


def text(x, y, words, anchor="start", size=12):
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


if __name__ == "__main__":
    main()

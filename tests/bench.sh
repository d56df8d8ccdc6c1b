#!/bin/bash
# What scripts/bench makes of its samples: medians, ratios, verdicts, a chart; whose CPU time it takes for
# others'; and how it searches a rate.
# The samples are made up here. Needs neither root nor binaries.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts/lib/bench

main() {
    samples_compared
    summary_drawn
    cpu_time_of_others
    rounds_measured
    rate_searched
    routes_sent_again
    rows_named
    report_end
}

# sampled MEASUREMENT SIDE KEY VALUE…: a sample for each value.
sampled() {
    local value
    for value in "${@:4}"; do
        jq -cn --arg measurement "$1" --arg side "$2" --arg key "$3" --argjson value "$value" \
            '{$measurement, $side, ($key): $value, cpu_seconds: 2, foreign: 0.01, noisy: ($value == 3e9), bytes: 4e9, retransmits: 7}'
    done >>"$scratch/samples"
}

# row ID CONDITION: of the summary.
row() {
    jq -e --arg id "$1" "map(select(.id == \$id)) | length == 1 and (.[0] | $2)" "$scratch/summary" >/dev/null ||
        { jq -c --arg id "$1" '.[] | select(.id == $id)' "$scratch/summary" && return 1; }
}

table() { python3 "$root/scripts/lib/bench/table.py" "$scratch/samples" "$scratch/summary" 4 5 "${1:-20}" >"$scratch/table"; }

samples_compared() {
    sampled tcp-1-apart vswitchd value 9e9 3e9 11e9
    sampled tcp-1-apart bridge value 10e9 10e9 10e9
    sampled tcp-1-together vswitchd value 10e9
    sampled tcp-1-together bridge value 10e9
    sampled tcp-8-apart vswitchd value 7e9
    sampled tcp-8-apart bridge value 10e9
    sampled exchange-apart vswitchd p50_us 40
    sampled exchange-apart bridge p50_us 100
    sampled exchange-together vswitchd p50_us 31
    sampled exchange-together bridge p50_us 10
    sampled flood-1000 vswitchd value 500e3
    sampled flood-1000 nft-linear value 500e3
    sampled out-offload-apart vswitchd-uncut value 4e9
    sampled out-offload-apart kernel-uncut value 5e9
    sampled idle vswitchd value 1
    sampled idle ovs value 0.1
    sampled victim-fifo vswitchd lost 0.5
    sampled victim-fifo bridge lost 0
    # A side that was not measured.
    sampled tcp-8-together vswitchd value 10e9
    sed -i '/victim/s/}$/,"p50_us":1,"p99_us":1,"p999_us":1}/' "$scratch/samples"
    sed -i 's/"exchange-\([a-z]*\)"\(.*\)}$/"exchange-\1"\2,"p99_us":100}/' "$scratch/samples"
    check "a table is made" table
    check "medians are compared" row B1 '.ours == 9 and .peer == 10 and .ratio == 0.9 and .verdict == "floor"'
    check "the CPUs of both ends are named" row B1 '.what | endswith("server CPU 4, client CPU 5")'
    check "with how far the extremes are apart" row B1 '.spread[0] > 0.88 and .spread[0] < 0.89 and .spread[1] == 0'
    check "with CPU seconds for 10^9 bytes, and what was sent again" row B1 \
        '.cpu_seconds_per_gb == [0.5, 0.5] and .retransmits == [7, 7]'
    check "with what was noisy" row B1 '.noisy == 1 and .foreign == 0.01'
    check "what reaches its goal has reached it" row B2 '.verdict == "goal"'
    check "what is short of its floor is below" row B1-8 '.verdict == "below"'
    check "where less is better, less reaches the goal" row B13 '.ratio == 0.4 and .verdict == "goal"'
    check "and more than the floor is below" row B14 '.verdict == "below"'
    check "beside a peer with a figure of zero there is no ratio" row B15-fifo-lost '.ratio == null and .peer == 0'
    check "how often a NIC interrupts is told" row B5 '.what | contains("offload, an interrupt in 20 us, Gb/s")'
    check "what is asked of our own figure is judged by it" row B17 '.verdict == "floor" and .bounds_of == "ours" and .ratio == 10'
    check "where nothing is asked for there is no verdict" row B11-1000-states '.verdict == null'
    check_not "what was not measured with a peer is no row" row B2-8 true
    check "every row has its keys" jq -e 'all(.[]; has("id") and has("ours") and has("peer") and has("ratio")
        and has("floor") and has("goal") and has("verdict"))' "$scratch/summary"
    check "a table of another run is made" table 0
    check "where a NIC interrupts for each frame, that is told" row B5 '.what | contains("offload, interrupts not moderated, Gb/s")'
    check "the table has them all" test "$(wc -l <"$scratch/table")" = "$(($(jq length "$scratch/summary") + 1))"
}

summary_drawn() {
    check "a chart is drawn" python3 "$root/scripts/lib/bench/chart.py" "$scratch/summary" "$scratch/chart.svg" 'ours < & theirs'
    check "with a bar for each row that has a peer, marks of its bounds, to the right what is better" \
        python3 - "$scratch" <<'PY'
import json
import sys
import xml.etree.ElementTree as tree

SVG = "{http://www.w3.org/2000/svg}"
with open(f"{sys.argv[1]}/summary") as file:
    rows = [row for row in json.load(file) if row["bounds_of"] == "ratio" and row["ratio"]]
root = tree.parse(f"{sys.argv[1]}/chart.svg").getroot()
bars = [each for each in root.iter(f"{SVG}rect") if each.get("class") == "bar"]
assert len(bars) == len(rows) > 5, (len(bars), len(rows))
goals = [each for each in root.iter(f"{SVG}line") if each.get("class") == "goal"]
assert len(goals) == sum(row["goal"] is not None for row in rows)
one = next(float(each.get("x")) for each in root.iter(f"{SVG}text") if each.text == "1")
for row, bar in zip(rows, bars):
    ahead = row["ratio"] < 1 if row["less_is_better"] else row["ratio"] > 1
    begins = float(bar.get("x"))
    assert (begins >= one - 0.1) == (ahead or row["ratio"] == 1), (row["id"], begins, one)
PY
}

# Two seconds of two CPUs; 10 is the run, 11 its child, 20 another program that has a child 21, 3 a thread
# of the kernel's.
cpu_time_of_others() {
    check "CPU time is told apart" python3 - <<'PY'
from meter import TICK, measured

before = {
    "time": 0.0, "machine": [0] * 8,
    "processes": {2: (0, 1, 0, 0), 3: (2, 1, 0, 0), 10: (1, 5, 100, 0), 20: (1, 5, 500, 0), 21: (20, 6, 900, 0)},
}
after = {
    "time": 2.0,
    # user, nice, system, idle, iowait, irq, softirq, steal
    "machine": [100, 0, 50, 100, 0, 0, 30, 4],
    "processes": {
        2: (0, 1, 0, 0), 3: (2, 1, 40, 0), 10: (1, 5, 110, 20), 11: (10, 90, 30, 0), 20: (1, 5, 520, 0), 22: (1, 95, 10, 0),
    },
}
told = measured(before, after, {10}, 2)
assert told["foreign"] == round((30 + 4) / TICK / 4, 4), told
assert told["cpu_seconds"] == (180 - 30) / TICK, told
# 21 has ended: all that it ever took is its parent's, which is more than there was.
after["processes"][20] = (1, 5, 520, 910)
told = measured(before, after, {10}, 2)
assert told["foreign"] == round((180 - 60 + 4) / TICK / 4, 4), told
PY
}

rounds_measured() {
    check "a figure that others disturbed is measured again" in_a_run '
        foreign=(0.3 0.01 0.02); bench_measure tcp-1-apart counted vswitchd
        told ". == [{measurement: \"tcp-1-apart\", side: \"vswitchd\", value: 2, foreign: 0.01, noisy: false}]"'
    check "no more often than that, and the quietest is kept" in_a_run '
        foreign=(0.3 0.2 0.4 0.01); bench_measure tcp-1-apart counted vswitchd
        told "map([.value, .noisy]) == [[2, true]]"'
    check "figures of several sides at once are each its own" in_a_run '
        both() { echo "{\"sides\": {\"vswitchd\": {\"a\": 1}, \"other\": {\"a\": 2}}}"; }
        foreign=(0); bench_measure add both all
        told "map([.side, .a]) == [[\"vswitchd\", 1], [\"other\", 2]]"'
    # shellcheck disable=SC2016
    check "one that fails once is tried again" in_a_run '
        once() { (($(counted) > 1)) && echo 1; }
        foreign=(0 0); bench_measure tcp-1-apart once vswitchd
        told "map(.value) == [1]" && ((failed == 0))'
    # shellcheck disable=SC2016
    check "one that fails twice costs its figure, and the run its success" in_a_run '
        broken() { [[ $1 != bad ]] || return 1; echo 1; }
        foreign=(0 0 0); bench_measure tcp-1-apart broken bad vswitchd >/dev/null
        told "map(.side) == [\"vswitchd\"]" && ((failed == 1))'
}

# in_a_run COMMANDS: where the meter tells what `foreign` has, in turn; `counted` prints how often it was asked.
in_a_run() {
    rm -rf "$scratch/run"
    mkdir -p "$scratch/run/logs"
    # shellcheck disable=SC2016
    root=$root VSWITCH_LOGS=$scratch/run/kept CARGO_TARGET_DIR=$scratch/run bash -euc '
        . "$root/scripts/lib/all.sh"
        . "$root/scripts/lib/bench/run.sh"
        LAB_DIR=$CARGO_TARGET_DIR bench_rounds=1
        mkdir "$bench_dir"
        : >"$LAB_DIR/asked"
        bench_python() {
            [[ $2 == end ]] || { echo >>"$LAB_DIR/asked" && return; }
            printf "{\"foreign\": %s}" "${foreign[$(wc -l <"$LAB_DIR/asked") - 1]}"
        }
        counted() { wc -l <"$LAB_DIR/asked"; }
        told() { jq -se "$1" "$bench_dir/samples" >/dev/null || { cat "$bench_dir/samples" && return 1; }; }
        '"$1"
}

# Ways that lose what is more than they take, or by chance.
rate_searched() {
    check "the rate is found of which half a percent is lost, in bounded trials" python3 - <<'PY'
from pdr import LOSS, WIDTH, Trial, search

for takes in (1_000, 47_000, 300_000, 890_000):
    def attempt(rate):
        sent = min(rate or 1e9, 900_000)
        return Trial(rate, sent, min(sent, takes))
    best, trials, bound = search(attempt)
    exact = takes / (1 - LOSS)
    assert not bound and trials <= 16, (takes, trials)
    assert exact * (1 - 2 * WIDTH) <= best.sent <= exact, (takes, best.sent)
PY
    check "a sender that is slower than the way ends it" python3 - <<'PY'
from pdr import Trial, search

best, trials, bound = search(lambda rate: Trial(rate, 500_000, 499_000))
assert bound and trials == 1 and best.arrived == 499_000, (trials, best.arrived)
PY
    check "one that is slower only when it is paced, too" python3 - <<'PY'
from pdr import Trial, search

def attempt(rate):
    sent = min(rate, 200_000) if rate else 500_000
    return Trial(rate, sent, min(sent, 400_000))
best, _, bound = search(attempt)
assert bound and best.sent == 200_000, best.sent
PY
    check "what always loses has no rate" python3 - <<'PY'
from pdr import Trial, search

best, trials, bound = search(lambda rate: Trial(rate, rate or 1e6, (rate or 1e6) * 0.9))
assert (best.arrived, bound) == (0, False) and trials <= 16, (best.arrived, trials)
PY
    check "what passes once does not count" python3 - <<'PY'
from pdr import Trial, search

asked = []
def attempt(rate):
    passes = rate is not None and rate not in asked and rate < 900_000
    asked.append(rate)
    sent = rate or 1e6
    return Trial(rate, sent, sent if passes and rate < 300_000 else sent * 0.9)
best, trials, _ = search(attempt)
assert best.sent < 300_000 and trials <= 16, (best.sent, trials)
assert asked.count(best.rate) == 1, best.rate
PY
}

routes_sent_again() {
    check "a daemon that closes the connection once is asked again" python3 - "$scratch/socket" <<'PY'
import json
import socket
import struct
import sys
import threading

import fib

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()


def daemon():
    for answers in (False, True):
        client, _ = listener.accept()
        (length,) = struct.unpack("!I", client.recv(4, socket.MSG_WAITALL))
        client.recv(length, socket.MSG_WAITALL)
        if answers:
            body = json.dumps({"version": 1, "message": {"Ok": {"with": []}}}).encode()
            client.sendall(struct.pack("!I", len(body)) + body)
        client.close()


threading.Thread(target=daemon).start()
(_, body), = fib.requests(10)
assert fib.sent(sys.argv[1], body) == []
PY
    check "a million routes are distinct, and their requests within the limit" python3 - <<'PY'
import fib

every = list(fib.prefixes(1_000_000))
assert len(set(every)) == 1_000_000
assert sum("." in each for each in every) == fib.COUNT4
assert all(len(body) < 4 * 1024 * 1024 for _, body in fib.requests(1_000_000))
PY
}

rows_named() {
    check "no two rows have one name" python3 - <<'PY'
from rows import rows

names = [row.id for row in rows()]
assert len(names) == len(set(names)), names
PY
    check "every row of the groups has a line in the help" rows_helped
}

rows_helped() {
    local name help
    help=$("$root/scripts/bench" --help)
    # shellcheck source=scripts/lib/bench/run.sh
    for name in $(. "$root/scripts/lib/bench/run.sh" && echo "${BENCH_ROWS[*]}"); do
        grep -q "^    $name " <<<"$help" || { echo "$name" && return 1; }
    done
}

main "$@"

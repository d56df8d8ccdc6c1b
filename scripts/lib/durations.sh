# shellcheck shell=bash
# How long the parts of a test run take. Each part is noted when it ends; the slowest are listed at the
# end of the run. Sourced after report.sh.

# The file that holds them, a line each: SECONDS and WHAT, parted by a tab. Set by durations_begin.
durations=

# durations_begin FILE: a new run; what the last one noted is in FILE.last.
durations_begin() {
    durations=$1
    [[ ! -f $1 ]] || mv "$1" "$1.last"
    touch "$1" "$1.last"
}

# now: milliseconds since the epoch.
now() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

# seconds_since MILLISECONDS: with one decimal.
seconds_since() {
    local passed=$(($(now) - $1))
    printf '%d.%d' $((passed / 1000)) $((passed % 1000 / 100))
}

# note_duration SECONDS WHAT
note_duration() { printf '%s\t%s\n' "$1" "$2" >>"$durations"; }

# What `timed` measured last, in seconds.
took=

# timed WHAT COMMAND…: notes how long the command takes.
timed() {
    local what=$1 began code=0
    shift
    began=$(now)
    "$@" || code=$?
    took=$(seconds_since "$began")
    note_duration "$took" "$what"
    return "$code"
}

# slowest COUNT: prints so many of what was noted, the slowest first.
slowest() {
    # awk reads to the end: sort would fail at a pipe that is closed before.
    sort -rn "$durations" | awk -F '\t' -v count="$1" 'NR <= count { printf "%8.1f s  %s\n", $1, $2 }'
}

# longest_first WHAT…: a line each, ordered by what the last run noted; what it did not know is first.
longest_first() {
    printf '%s\n' "$@" | awk -v last="$durations.last" '
        BEGIN { while ((getline line < last) > 0) { split(line, part, "\t"); took[part[2]] = part[1] } }
        { print ($0 in took ? took[$0] : 1e9) "\t" $0 }' | sort -s -k 1,1nr | cut -f 2
}

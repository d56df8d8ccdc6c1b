#!/bin/bash
# How scripts/test runs scenarios: side by side or alone, each one's lines together, every count added,
# whatever goes wrong counted as a failure, and all of them cleaned up when they are interrupted. The
# scenarios are made up here. Needs neither root nor binaries.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"
# shellcheck source=scripts/lib/durations.sh
. "$root/scripts/lib/durations.sh"
# shellcheck source=scripts/lib/scenarios.sh
. "$root/scripts/lib/scenarios.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    logs=$scratch/logs
    mkdir "$logs"
    durations_begin "$scratch/durations"
    side_by_side_and_alone
    what_goes_wrong
    interrupted
    report_end
}

# made NAME [LINE]: a scenario with this line, and the commands on stdin.
made() {
    {
        printf '#!/bin/bash\n%s\ncd %q\n' "${2:-}" "$scratch"
        cat <<'SH'
# until_there FILE: another scenario writes it; not for ever.
until_there() { for ((i = 0; i < 10 * ${PATIENCE:-5}; i++)); do [[ ! -e $1 ]] || return 0; sleep 0.1; done; }
SH
        cat
    } >"$scratch/$1.sh"
    chmod +x "$scratch/$1.sh"
}

# run AT_ONCE NAME…: into `said`, with the counts that are added up. Words may follow a name.
run() { (run_here "$@"); }

# run_here AT_ONCE NAME…: in a shell that it may end.
run_here() {
    local name scripts=()
    for name in "${@:2}"; do scripts+=("$scratch/${name%% *}.sh${name#"${name%% *}"}"); done
    exec >"$scratch/said" 2>&1
    trap scenarios_stop EXIT
    trap 'exit 143' TERM
    passed=0 failed=0 skipped=0 failures=()
    VSWITCH_TEST_JOBS=$1 scenarios "${scripts[@]}"
    list_failures
    report_end
}

# Each of one and two ends only once the other has begun, and some time later; alone looks whether
# one of them runs.
side_by_side_and_alone() {
    local name other
    made alone '# alone: it looks for others' <<'SH'
sleep 0.5
ls running.* 2>/dev/null && echo '0 passed, 1 failed, 0 skipped' && exit 1
echo '1 passed, 0 failed, 0 skipped'
SH
    for name in one two; do
        other=$([[ $name == one ]] && echo two || echo one)
        made "$name" <<SH
touch running.$name begun.$name
echo "$name begins"
until_there begun.$other
[[ -e begun.$other ]] || echo "$name never met $other"
sleep 1
echo "$name ends"
rm running.$name
echo '2 passed, 0 failed, 1 skipped'
SH
    done
    check "they succeed" run 3 alone one two
    check "all counts are added" says '5 passed, 0 failed, 2 skipped'
    check_not "one and two ran side by side" says '.* never met .*'
    check "the lines of one are together" together one
    check "and those of two" together two
    check "the seconds of each are noted" test "$(wc -l <"$durations")" = 3
    seq 5000 | sed 's/$/\tone of many/' >"$durations"
    check "of thousands the slowest are listed" slowest 2
    rm "$scratch"/begun.*
    printf '7\t%s\n' "$scratch/one.sh" >"$durations"
    printf '9\t%s\n' "$scratch/two.sh" >>"$durations"
    durations_begin "$durations"
    # No time is enough for it.
    PATIENCE=1 check "so they do one at a time" run 1 one two
    check "the one that took longest is first, and never meets the other" says 'two never met one'
    mkdir "$scratch/a" "$scratch/b"
    made a/same <<'SH'
until_there begun.b
echo '1 passed, 0 failed, 0 skipped'
SH
    made b/same <<'SH'
seq 20
touch begun.b
sleep 1
echo '1 passed, 0 failed, 0 skipped'
SH
    check "two of one name are two" run 2 a/same b/same
    check "and each is counted" says '2 passed, 0 failed, 0 skipped'
    # shellcheck disable=SC2016
    made worded <<<'echo "$1 passed, 0 failed, $2 skipped"'
    check "words are given to a scenario" run 2 "worded 3 1" "worded 2 0"
    check "which may run with others beside it" says '5 passed, 0 failed, 1 skipped'
}

# says PATTERN: a whole line.
says() { grep -Eqx "$1" "$scratch/said" || { cat "$scratch/said" && return 1; }; }

together() { grep -A 1 -x "$1 begins" "$scratch/said" | grep -qx "$1 ends"; }

what_goes_wrong() {
    made breaks <<<'echo "before it has counts"; exit 0'
    made late <<<'echo "1 passed, 0 failed, 0 skipped"; exit 3'
    made fails <<'SH'
echo '  ✗ the first: why'
echo '  ✗ the second'
echo '1 passed, 2 failed, 0 skipped'
exit 1
SH
    check_not "one that breaks off is a failure" run 1 breaks
    check "which is counted" says '0 passed, 1 failed, 0 skipped'
    check_not "so is one that fails after its counts" run 1 late
    check "which is counted beside what passed" says '1 passed, 1 failed, 0 skipped'
    check_not "failures fail" run 1 fails
    check "and are counted once" says '1 passed, 2 failed, 0 skipped'
    check "the end of the run names each, with its scenario" says "  ✗ .*/fails.sh: the first: why"
    check "and the other" says "  ✗ .*/fails.sh: the second"
    check_not "beside one that passes" run 1 fails "worded 1 0"
    check_not "which is not named" says "  ✗ .*/worded.sh.*"
}

# What the scenario waits for is ended as well: bash would not clean up before.
interrupted() {
    local pid
    made cleans <<'SH'
trap 'touch cleaned' EXIT
trap 'exit 143' TERM
bash -c 'trap "touch ended; exit" TERM; touch standing; sleep 60 & wait'
SH
    run_here 1 cleans &
    pid=$!
    for _ in {1..50}; do [[ ! -e $scratch/standing ]] || break; sleep 0.1; done
    kill -TERM "$pid"
    check_not "an interrupted run fails" wait "$pid"
    check "what its scenario waited for is ended" test -e "$scratch/ended"
    check "and the scenario has cleaned up" test -e "$scratch/cleaned"
}

main "$@"

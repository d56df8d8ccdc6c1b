# shellcheck shell=bash
# What the scripts say. Every check ends in `pass`, `fail` or `skip`; `report_end` adds them up and
# turns the sum into an exit code. Sourced by every script here and in tests/lab.

passed=0
failed=0
skipped=0
# What failed, a line each.
failures=()

# say TEXT: something a person wants to know.
say() { printf '%s\n' "$*"; }

# step TEXT: what is being done now.
step() { printf '▸ %s\n' "$*"; }

# Whether what is printed goes to a terminal, and what `progress` said last.
at_terminal=
[[ ! -t 1 ]] || at_terminal=yes
progress_said=

# progress TEXT: what is being done meanwhile. At a terminal one line that is written over, elsewhere
# a line whenever it changes.
progress() {
    [[ $1 != "$progress_said" ]] || return 0
    progress_said=$1
    if [[ -n $at_terminal ]]; then
        printf '\r\e[K▸ %s' "${1:0:$((${COLUMNS:-80} - 3))}"
    else
        step "$1"
    fi
}

# progress_clear: before anything else is printed.
progress_clear() {
    [[ -z $progress_said || -z $at_terminal ]] || printf '\r\e[K'
    progress_said=
}

# heading TEXT: a new subject.
heading() { printf '\n%s\n' "$*"; }

# die TEXT: the script cannot go on.
die() {
    printf '✗ %s\n' "$*" >&2
    exit 1
}

# pass WHAT
pass() {
    passed=$((passed + 1))
    printf '  ✓ %s\n' "$1"
}

# fail WHAT [DETAIL]
fail() {
    failed=$((failed + 1))
    failures+=("$1")
    printf '  ✗ %s%s\n' "$1" "${2:+: $2}"
}

# skip WHAT REASON: never silent, because a check that did not run proves nothing.
skip() {
    skipped=$((skipped + 1))
    printf '  – SKIPPED %s: %s\n' "$1" "$2"
}

# check WHAT COMMAND…: passes if the command succeeds; its output is the detail if it does not.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        pass "$what"
    else
        fail "$what" "$(tail -n 3 <<<"$output" | tr '\n' ' ')"
    fi
}

# check_not WHAT COMMAND…: passes if the command fails.
check_not() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then fail "$what"; else pass "$what"; fi
}

# list_failures: what failed, again, where thousands of lines lie between; nothing if nothing did.
list_failures() {
    ((${#failures[@]})) || return 0
    heading "What failed"
    printf '  ✗ %s\n' "${failures[@]}"
}

# The counts in the one form that scenarios.sh reads back.
report_counts() { printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"; }

# Prints the counts; succeeds if nothing failed.
report_end() {
    report_counts
    ((failed == 0))
}

# pad TEXT SHOWN_WIDTH WANTED_WIDTH: the widths are the caller's, because printf counts the bytes of
# a ✓ in some locales and its characters in others.
pad() { printf '%s%*s' "$1" $(($3 - $2)) ''; }

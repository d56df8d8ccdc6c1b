# shellcheck shell=bash
# Runs scenarios, the scripts that end in their counts (report.sh), several at a time. What a scenario
# prints is shown when it has ended, so that no two are mixed; its counts and what failed are added to
# ours, and its seconds are noted. A scenario with the line `# alone: REASON` gets the machine to itself, after the
# others. One may be given with words for it: "scripts/fuzz walk". Sourced after durations.sh. The caller's
# exit has to call scenarios_stop.

# The directory of their logs. The caller sets it.
logs=

# The last line of a scenario.
readonly COUNTS_PATTERN='[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped'
# The scripts that run, by process id, and when each began.
declare -A scenario_running=() scenario_began=()

# scenarios_at_once: how many run side by side. Each waits two thirds of its time; but all share one
# table of neighbours in the kernel, of 1,024 entries.
scenarios_at_once() {
    local count=${VSWITCH_TEST_JOBS:-$(($(nproc) * 3 < 8 ? $(nproc) * 3 : 8))}
    [[ $count =~ ^[1-9][0-9]*$ ]] || die "VSWITCH_TEST_JOBS is a number above zero, not \"$count\""
    printf '%s' "$count"
}

# scenarios SCRIPT…
scenarios() {
    local script together=() alone=() at_once
    at_once=$(scenarios_at_once)
    # Were the longest last, it would end by itself.
    while read -r script; do
        if scenario_alone "$script"; then alone+=("$script"); else together+=("$script"); fi
    done < <(longest_first "$@")
    side_by_side "$at_once" "${together[@]}"
    side_by_side 1 "${alone[@]}"
}

scenario_alone() { grep -q '^# alone: .' "${1%% *}"; }

# scenario_name SCENARIO: names its log, and itself where there is little room. Of two directories one may have
# a scenario of the same name as the other.
scenario_name() {
    local name=${1#tests/}
    name=${name#lab/} name=${name#scripts/} name=${name#/}
    name=${name/.sh/}
    printf '%s' "${name//[ \/]/-}"
}

# side_by_side AT_ONCE SCRIPT…
side_by_side() {
    local at_once=$1 pid shown=''
    shift
    while (($# + ${#scenario_running[@]} > 0)); do
        if (($# > 0 && ${#scenario_running[@]} < at_once)); then
            scenario_begin "$1"
            shift
            continue
        fi
        # A line that is not written over tells no seconds, and stays as it is until one ends.
        if [[ -n $at_terminal || $shown != "${!scenario_running[*]}" ]]; then
            shown=${!scenario_running[*]}
            progress "$(scenarios_progress "$#")"
        fi
        sleep 0.2
        for pid in "${!scenario_running[@]}"; do
            kill -0 "$pid" 2>/dev/null || scenario_end "$pid"
        done
    done
}

# scenario_begin SCRIPT: in a session of its own, by which scenarios_stop reaches all of its processes.
scenario_begin() {
    local name invocation
    name=$(scenario_name "$1")
    read -ra invocation <<<"$1"
    VSWITCH_LOGS=$logs/$name setsid "${invocation[@]}" </dev/null >"$logs/$name.log" 2>&1 &
    scenario_running[$!]=$1
    scenario_began[$!]=$(now)
}

# scenario_end PID: shows what it printed, and adds its counts, its last line, to ours.
scenario_end() {
    local pid=$1 script=${scenario_running[$1]} seconds code=0 log counts ok bad unrun what
    wait "$pid" || code=$?
    seconds=$(seconds_since "${scenario_began[$pid]}")
    unset "scenario_running[$pid]" "scenario_began[$pid]"
    note_duration "$seconds" "$script"
    log=$logs/$(scenario_name "$script").log
    progress_clear
    say "$script ($seconds s)"
    counts=$(tail -n 3 "$log" | grep -Ex "$COUNTS_PATTERN" || true)
    grep -Evx "$COUNTS_PATTERN" "$log" || true
    if [[ -z $counts ]]; then
        fail "$script" "it broke off; see $log"
        return 0
    fi
    read -r ok _ bad _ unrun _ <<<"$counts"
    passed=$((passed + ok))
    failed=$((failed + bad))
    skipped=$((skipped + unrun))
    while read -r what; do failures+=("$script: ${what#✗ }"); done < <(grep '^ *✗ ' "$log" || true)
    # What goes wrong after the counts is a failure too.
    if ((bad == 0 && code != 0)); then fail "$script" "exit code $code; see $log"; fi
}

# scenarios_stop: ends those that run, and returns when each has cleaned up after itself.
scenarios_stop() {
    local pid
    ((${#scenario_running[@]})) || return 0
    progress_clear
    step "Ending what runs: $(scenarios_named)"
    for pid in "${!scenario_running[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || true
    done
    wait "${!scenario_running[@]}" || true
    scenario_running=()
}

# scenarios_named: the names of those that run; at a terminal with the seconds that each has taken.
scenarios_named() {
    local pid
    for pid in "${!scenario_running[@]}"; do
        if [[ -n $at_terminal ]]; then
            printf '%s %d s\n' "$(scenario_name "${scenario_running[$pid]}")" \
                $((($(now) - scenario_began[$pid]) / 1000))
        else
            printf '%s\n' "$(scenario_name "${scenario_running[$pid]}")"
        fi
    done | sort | paste -sd, | sed 's/,/, /g'
}

# scenarios_progress WAITING
scenarios_progress() {
    printf 'running %s' "$(scenarios_named)"
    (($1 == 0)) || printf '; %d to come' "$1"
}

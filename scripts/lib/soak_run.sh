# shellcheck shell=bash
# A soak's frame: how often each thing is done, one process and lab for each claim, and what is written
# down. Sourced after all.sh by scripts/soak.
#
# Enters: soak_hours, soak_other and the claims' names. Leaves: target/soak/summary.json, a list of
# {claim, figure, verdict}, and the same as a table.

# Set by --long and --other.
soak_hours='' soak_other=''
soak_dir=${CARGO_TARGET_DIR:-$root/target}/soak
# What else runs on the machine is to count little: for daemon, plugins and the reference alike.
readonly SOAK_NICE=-15
# The process that measures a claim.
soak_child=

# How often; the claims' own counts with --long.
soak_counts() {
    SOAK_KILLS=10 SOAK_PODS=40 SOAK_LOST_DESCRIPTORS=4 SOAK_UPGRADES=6
    SOAK_CUTS=60 SOAK_FLIPS=100
    SOAK_CHURN=150 SOAK_KILLED_ADDS=60 SOAK_AWAY=40
    SOAK_ADDS=60 SOAK_ROUNDS=6 SOAK_LOST_DELS=100
    SOAK_REBOOTS=3 SOAK_WARM_S=30 SOAK_MEMORY_S=60
    SOAK_COLLECTED=100 SOAK_FORGED=100000
    SOAK_MESSAGES=2000 SOAK_IDLE=1000 SOAK_DRIPPING=300 SOAK_DESCRIPTORS=400 SOAK_CLIENT_ADDS=20
    [[ -n $soak_hours ]] || return 0
    SOAK_KILLS=50 SOAK_PODS=100 SOAK_LOST_DESCRIPTORS=50 SOAK_UPGRADES=20
    SOAK_CUTS=100000 SOAK_FLIPS=10000
    SOAK_CHURN=1000 SOAK_KILLED_ADDS=400
    SOAK_ADDS=200 SOAK_ROUNDS=20 SOAK_LOST_DELS=1000
    SOAK_REBOOTS=10 SOAK_WARM_S=600
    SOAK_COLLECTED=500 SOAK_FORGED=1000000
    SOAK_MESSAGES=10000 SOAK_DESCRIPTORS=4000 SOAK_CLIENT_ADDS=60
    SOAK_MEMORY_S=$(awk -v hours="$soak_hours" 'BEGIN { print int(hours * 3600) }')
}

# soak_all CLAIM…
soak_all() {
    local claim foreign foreigns=() began options=()
    setup_packages lab
    setup_binaries
    [[ -z $(lab_lacks) ]] || die "This machine lacks for a lab: $(lab_lacks)"
    [[ -z $soak_hours ]] || options+=(--long "$soak_hours")
    [[ -z $soak_other ]] || options+=(--other "$soak_other")
    mkdir -p "$soak_dir"
    : >"$soak_dir/results"
    trap 'soak_stop 130' INT
    trap 'soak_stop 143' TERM HUP
    soak_machine
    for claim in "$@"; do
        foreign=$(foreign_cpus)
        foreigns+=("$foreign")
        began=$(now)
        heading "$claim (other programs use $foreign of $(nproc) CPUs)"
        # In a session of its own: a signal reaches whatever runs there.
        VSWITCH_BIN=$bin VSWITCH_LOGS=$soak_dir/logs/$claim nice -n "$SOAK_NICE" \
            setsid "$root/scripts/soak" "${options[@]}" --measure "$claim" </dev/null &
        soak_child=$!
        wait "$soak_child" ||
            figure "$claim" "not measured: it broke off; the logs are in $soak_dir/logs/$claim" short
        soak_child=
        step "$(seconds_since "$began") s"
        soak_summary
    done
    soak_table
    say "Other programs used $(printf '%s\n' "${foreigns[@]}" | sort -n | sed -n '1p;$p' | paste -sd- | sed 's/-/ to /') of $(nproc) CPUs before each; load $(cut -d' ' -f1-3 /proc/loadavg)."
    ! grep -q '"short"' "$soak_dir/results"
}

soak_stop() {
    trap '' INT TERM HUP
    if [[ -n $soak_child ]]; then
        kill -TERM -- "-$soak_child" 2>/dev/null || true
        wait "$soak_child" || true
    fi
    exit "$1"
}

# soak_measure CLAIM
soak_measure() {
    local claim=$1
    bin=$VSWITCH_BIN
    soak_hasten self
    lab_trap
    lab_create
    "soak_${claim//-/_}"
}

# soak_hasten PROCESS
soak_hasten() { lab_hasten "$1" "$SOAK_NICE"; }

# soak_node_up: soak_node, hastened.
soak_node_up() {
    soak_node
    soak_hasten "$(lab_pid vswitchd-node-a)"
}

soak_machine() {
    say "$(machine_line)"
    say "Worker on CPU $(allowed_cpu 0); traffic on CPU $(allowed_cpu 1). Daemon, plugins and reference have nice $SOAK_NICE, the traffic SCHED_FIFO. Binaries: $bin"
}

# figure CLAIM FIGURE VERDICT
figure() {
    jq -nc --arg claim "$1" --arg figure "$2" --arg verdict "$3" \
        '{claim: $claim, figure: $figure, verdict: $verdict}' >>"$soak_dir/results"
    say "  $3: $1: $2"
}

# judge REPORT CLAIM FIGURE CONDITION: a report in JSON, a jq filter for the figure, and one that is true
# where the claim is held.
judge() {
    local said verdict=short
    said=$(jq -r "$3" <<<"$1")
    [[ $(jq "$4" <<<"$1") != true ]] || verdict=held
    figure "$2" "$said" "$verdict"
}

soak_summary() {
    jq -s . "$soak_dir/results" >"$soak_dir/summary.json.part"
    mv "$soak_dir/summary.json.part" "$soak_dir/summary.json"
}

soak_table() {
    heading "claim, figure, verdict ($soak_dir/summary.json)"
    jq -r '[.claim, .figure, .verdict] | @tsv' "$soak_dir/results" |
        awk -F '\t' '{ printf "%-6s %s\n       %s\n", $3, $1, $2 }'
}

# verdict_of COMMAND…
verdict_of() { if "$@"; then printf held; else printf short; fi; }

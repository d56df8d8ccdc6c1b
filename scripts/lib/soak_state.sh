# shellcheck shell=bash
# Claims of the state directory: a damaged journal, a full or read-only file system, a reboot. Sourced
# after soak_pods.sh.

readonly SOAK_STATE_PODS=12
# So many of them soak_disk has deleted.
soak_deleted=0

soak_journal() {
    local reports
    soak_node_up
    soak_pods "$((SOAK_STATE_PODS / 2))"
    journal_rewritten
    soak_pods "$SOAK_STATE_PODS" "$((SOAK_STATE_PODS / 2 + 1))"
    lab_signal vswitchd-node-a KILL
    reports=$(soak_python soak_journal "$bin/vswitchd" "$bin/vswitchctl" "$(node_dir node-a)/vswitch.toml" \
        "$bin/vswitch-cni" "$LAB_DIR/network.json" "$(ns '')" "$LAB_DIR/namespaces" "$SOAK_CUTS" "$SOAK_FLIPS")
    judge "$(sed -n 1p <<<"$reports")" "journal cut off: starts, keeps each pod whose lines are whole" \
        '"\(.samples) places of \(.bytes) bytes, \(.pods) pods: \(.not_started) did not start, at most \(.whole_lost) such pods lost"' \
        '.not_started + .whole_lost == 0'
    judge "$(sed -n 1p <<<"$reports")" "journal cut off: no live pod dropped, no duplicate address" \
        '"\(.samples) places of \(.bytes) bytes, \(.pods) pods: at most \(.most_lost) pods lost; \(.duplicates) of \(.adds) ADDs got an address of a pod that lives"' \
        '.most_lost + .duplicates == 0'
    journal_figure "$(sed -n 2p <<<"$reports")" "byte cut out of the journal"
    journal_figure "$(sed -n 3p <<<"$reports")" "bit of the journal flipped"
}

# Makes the daemon write its journal anew: with one line for each pod, where those that come later have
# two.
journal_rewritten() {
    local before now round
    now=$(journal_lines)
    for round in {1..8}; do
        before=$now
        churn churn --count 30 --at-once 8 >/dev/null
        now=$(journal_lines)
        ((now > before)) || return 0
    done
    die "The journal was not written anew after $round times 30 pods; it has $now lines"
}

journal_lines() { wc -l <"$(node_dir node-a)/state/journal"; }

# journal_figure REPORT WHAT
journal_figure() {
    judge "$1" "$2: starts, costs at most one line, no duplicate address" \
        '"\(.samples) times: \(.not_started) did not start; at most \(.most_lost) pods lost, \(.whole_lost) of them not in that line; \(.duplicates) of \(.adds) ADDs got an address of a pod that lives"' \
        '.not_started + .whole_lost + .duplicates == 0 and .most_lost <= 1'
}

# The state directory is a file system of its own, in a mount namespace of the daemon.
soak_disk() {
    VSWITCHD_ROLE=supervise
    soak_node_up
    soak_pods "$SOAK_STATE_PODS"
    lab_signal vswitchd-node-a TERM
    cp -a "$(node_dir node-a)/state" "$LAB_DIR/state.saved"
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    local fill='dd if=/dev/zero of=$state/filler bs=4k 2>/dev/null || true' free='rm $state/filler'
    # shellcheck disable=SC2016
    local read_only='mount -o remount,ro $state' writable='mount -o remount,rw $state'
    disk_figure full "$fill" "$free" kept
    disk_figure read-only "$read_only" "$writable" kept
    disk_figure full "$fill" "$free" lost
    disk_figure read-only "$read_only" "$writable" lost
}

# disk_figure NAME COMMAND CURE kept|lost: a daemon starts after the command, with the pods' descriptors or
# without, and goes on after the cure.
disk_figure() {
    local name=$1 before=$2 cure=$3 descriptors=$4 said=() verdict=held former
    step "State directory $name, descriptors $descriptors"
    if [[ $descriptors == kept ]]; then
        disk_start true
        node_adjust node-a >>"$LAB_DIR/logs/disk.log" 2>&1
        former=$(soak_daemon)
        # What a process has open for writing does not become read-only.
        kill -STOP "$(lab_pid vswitchd-node-a)"
        kill -KILL "$former"
        wait_until 5 process_ended "$former"
        in_state "$before"
        kill -CONT "$(lab_pid vswitchd-node-a)"
        ask starts wait_until 20 is_another "$former"
    else
        ask starts disk_start "$before"
        node_adjust node-a >>"$LAB_DIR/logs/disk.log" 2>&1 || true
    fi
    if [[ $verdict == held ]]; then
        ask "$((SOAK_STATE_PODS - soak_deleted)) pods connected" until_deadline 10 all_ping
        soak_deleted=$((soak_deleted + 1))
        ask "DEL succeeds" cni node-a DEL "p$soak_deleted"
        lab_add_ns "new$soak_deleted"
        ask "ADD refused" refuses_add "new$soak_deleted"
        in_state "$cure"
        ask "ADD succeeds after the cure" until_deadline 20 cni node-a ADD "new$soak_deleted"
        ask "no duplicate address" no_duplicate
        cni node-a DEL "new$soak_deleted" >>"$LAB_DIR/logs/disk.log" 2>&1 || true
    fi
    figure "state directory $name, descriptors $descriptors: starts, no live pod dropped, no duplicate" \
        "$(printf '%s; ' "${said[@]}" | sed 's/; $//')" "$verdict"
    lab_signal vswitchd-node-a TERM
    VSWITCHD_UNDER=()
}

# ask WHAT COMMAND…: a part of disk_figure.
ask() {
    local what=$1
    shift
    if "$@" >>"$LAB_DIR/logs/disk.log" 2>&1; then
        said+=("$what")
    else
        said+=("not: $what")
        verdict=short
    fi
}

# disk_start COMMAND: a daemon on a fresh copy of the saved state, after the command.
disk_start() {
    # shellcheck disable=SC2016  # The shell that is executed expands them.
    VSWITCHD_UNDER=(env state="$(node_dir node-a)/state" saved="$LAB_DIR/state.saved" before="$1" unshare --mount sh -c '
        mount -t tmpfs -o size=1m,mode=0700 tmpfs "$state" && cp -a "$saved/." "$state/" && eval "$before" &&
            exec "$@"' sh)
    node_start node-a
}

# in_state COMMAND: in the daemon's mount namespace.
in_state() {
    nsenter -t "$(lab_pid vswitchd-node-a)" -m env state="$(node_dir node-a)/state" sh -c "$1"
}

all_ping() {
    local number
    for ((number = soak_deleted + 1; number <= SOAK_STATE_PODS; number++)); do
        in_ns "p$number" ping -q -n -c 1 -W 1 "$(gateway4 node-a)" || return 1
    done
}

# The daemon may not hand out what it could not write down.
refuses_add() { ! cni node-a ADD "$1"; }

no_duplicate() {
    ctl node-a show ports --json | jq -e '[.[] | select(.attachment) | .addresses[]] | length == (unique | length)'
}

soak_reboots() {
    local number pod stale=0
    soak_node_up
    for ((number = 1; number <= SOAK_REBOOTS; number++)); do
        progress "reboot $number of $SOAK_REBOOTS"
        for pod in {1..5}; do pod_plug node-a "r$pod"; done
        lab_signal vswitchd-node-a KILL
        for pod in {1..5}; do lab_delete_ns "r$pod"; done
        in_ip node-a link delete vsw0
        printf '11111111-2222-3333-4444-%012d\n' "$number" >"$LAB_DIR/boot_id"
        # shellcheck disable=SC2016  # The shell that is executed expands it.
        VSWITCHD_UNDER=(unshare --mount sh -c
            'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$LAB_DIR/boot_id")
        node_start node-a
        stale=$((stale + $(leases)))
    done
    progress_clear
    figure "reboots leave no stale lease" "$SOAK_REBOOTS reboots with 5 pods each: $stale stale" \
        "$( ((stale == 0)) && echo held || echo short)"
}

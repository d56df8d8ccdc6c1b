#!/bin/bash
# Two workers on a NIC of two queues: each owns one queue and some of the pods, flows are spread over
# both, and every pod is reached whichever worker receives from it. Of two busy pods that one worker receives
# from, one moves to the other worker. Cores that cannot be had are refused by name.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# Enough that flows on one queue only would be a chance of one in 2^31.
readonly FLOWS=32

# A port moves when its work has been averaged over some seconds.
readonly MOVES_WITHIN_S=30

main() {
    local node cores
    setup_binaries
    lab_trap
    lab_create
    cores="$(allowed_cpu 0), $(allowed_cpu 1)"
    if [[ ${cores%,*} == "${cores#*, }" ]]; then
        skip "two workers" "this process may run on one CPU only"
        report_end
        exit
    fi
    underlay_up
    for node in node-a node-b; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    done
    node_config node-a vxlan node-b | sed "s|^cores = .*|cores = [$cores]|" \
        >"$(node_dir node-a)/vswitch.toml"
    node_config node-b vxlan node-a >"$(node_dir node-b)/vswitch.toml"
    a_core_that_is_not_there
    node_start node-a
    node_start node-b
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-a a3
    pod_plug node-b b1
    servers_up a1 a2 a3 b1 node-a outside
    check "each is pinned to its core, with one queue of its own" pinned node-a "[$cores]"
    check "each receives from some pods" shared_out node-a
    matrix a1 a2 a3 b1 node-a
    check "$FLOWS flows from b1 to a1" flows b1 a1
    check "$FLOWS flows from a2 to b1" flows a2 b1
    check "the NIC's packets came by both queues" both_queues
    check "a3 to outside, seen as its node" sees a3 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    two_busy_pods_of_one_worker
    check "DEL of a2" pod_unplug node-a a2
    check "a1 still reaches a3" talks a1 a3 4
    check "node-a accounts for every packet" accounts node-a
    report_end
}

a_core_that_is_not_there() {
    local said=$LAB_DIR/said code=0
    sed 's|^cores = .*|cores = [1023]|' "$(node_dir node-a)/vswitch.toml" >"$LAB_DIR/bad.toml"
    in_ns node-a timeout 10 "$bin/vswitchd" --config "$LAB_DIR/bad.toml" >"$said" 2>&1 || code=$?
    check "a core that is not there is refused by name" grep -Eq 'workers.cores\[0\].*core 1023' "$said"
    check "as a mistake of the configuration" test "$code" = 2
}

two_busy_pods_of_one_worker() {
    local worker busy pod
    worker=$(receiver_of a1)
    mapfile -t busy < <(received_by "$worker")
    check "one worker receives from two pods" test "${#busy[@]}" = 2
    for pod in "${busy[@]}"; do
        lab_spawn "flood-$pod" "$pod" /usr/bin/python3 "$root/tests/lab/superframe_flood.py" \
            "$(address b1 4)" 9 "$MOVES_WITHIN_S"
    done
    check "when both are busy the other worker takes one of them" \
        until_deadline "$MOVES_WITHIN_S" moved_from "$worker" "${busy[@]}"
    check "the log says so" grep -Eq "worker $((1 - worker)) receives from .* from now on" \
        "$LAB_DIR/logs/vswitchd-node-a.log"
    for pod in "${busy[@]}"; do lab_stop "flood-$pod"; done
    # Thousands of superframes wait in their interfaces' queues.
    check "what the pods have sent passes" until_deadline 30 queues_are_empty "${busy[@]}"
    matrix a1 a2 a3 b1
}

queues_are_empty() {
    local pod
    for pod in "$@"; do talks "$pod" b1 4 || return 1; done
}

# receiver_of POD: the number of the worker that receives from it.
receiver_of() {
    ctl node-a show ports --json | jq --arg address "$(address "$1" 4)" \
        '.[] | select(any(.addresses[]; . == $address)) | .worker'
}

# received_by WORKER: its pods.
received_by() {
    local pod
    for pod in a1 a2 a3; do
        [[ $(receiver_of "$pod") != "$1" ]] || echo "$pod"
    done
}

# moved_from WORKER POD POD: it receives from one of them.
moved_from() {
    local worker=$1 pod left=0
    shift
    for pod in "$@"; do
        [[ $(receiver_of "$pod") != "$worker" ]] || left=$((left + 1))
    done
    [[ $left == 1 ]] || { sleep 0.5 && return 1; }
}

pinned() {
    ctl "$1" status --json | jq -e --argjson cores "$2" '
        [.workers[].core] == $cores and ([.workers[].queues] == [[0], [1]])
    ' || { ctl "$1" status && return 1; }
}

shared_out() { ctl "$1" status --json | jq -e 'all(.workers[]; .ports > 0)'; }

# flows FROM TO: each from a port of its own, so that the outer port differs.
flows() {
    local flow
    for ((flow = 0; flow < FLOWS; flow++)); do
        fetch "$1" "$(address "$2" 4)" who >/dev/null || return 1
    done
}

# veth counts by queue what XDP redirected.
both_queues() {
    local counts
    counts=$(in_ns node-a ethtool -S eth0 | grep -E 'rx_queue_[01]_xdp_redirect')
    [[ $(grep -Ecv ': 0$' <<<"$counts") == 2 ]] || { echo "$counts" && return 1; }
}

main "$@"

#!/bin/bash
# IPIP to a node with two workers: all packets of the other node come by one queue of the NIC. With
# `handoff = "always"` both workers process them, by the inner flow, and each flow stays in order; with "never" the
# worker of that queue does it alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly FLOWS=8
readonly DATAGRAMS=1000
# Port of nobody.
readonly PORT=7400
readonly ORDERED=(/usr/bin/python3 "$root/tests/lab/ordered_flows.py")

main() {
    local cores
    setup_binaries
    lab_trap
    lab_create
    cores="$(allowed_cpu 0), $(allowed_cpu 1)"
    if [[ ${cores%,*} == "${cores#*, }" ]]; then
        skip "packets of IPIP that two workers share" "this process may run on one CPU only"
        report_end
        exit
    fi
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    # What the router sends to node-a comes by its first queue.
    in_ns router ethtool -L to-node-a tx 1
    node_up node-b ipip node-a
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    configured_with always
    VSWITCHD_ROLE=supervise node_start node-a
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1
    check "each worker has a queue of its own" has_queues
    check "each hands over to the other" hands_over '[1]' '[0]'
    check "status says so" finds "to 1, [0-9]* so far" <<<"$(ctl node-a status)"
    matrix a1 a2 b1
    before=$(all_handed_over)
    check "$FLOWS flows from b1 to a1 arrive in order" in_order
    check "one queue had them" one_queue
    check "each worker processed some of them" both_processed
    check "node-a accounts for every packet" accounts node-a
    configured_with never
    daemon=$(node_daemon node-a)
    kill -TERM "$daemon"
    check "the daemon starts anew, with the setting \"never\"" wait_until 20 is_another
    check "without handing over worker 0 keeps all" hands_over '[]' '[]'
    check "$FLOWS flows from b1 to a1 arrive in order" in_order
    check "nothing was handed over" handed_over 0
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# configured_with HANDOFF: node-a.
configured_with() {
    node_config node-a ipip node-b |
        sed "s|^cores = .*|cores = [$(allowed_cpu 0), $(allowed_cpu 1)]\nhandoff = \"$1\"|" \
            >"$(node_dir node-a)/vswitch.toml"
}

# Another daemon than that runs, and forwards.
is_another() {
    local now
    now=$(node_daemon node-a) && [[ $now != "$daemon" ]] && pings b1 "$(address a1 4)"
}

has_queues() { ctl node-a status --json | jq -e '[.workers[].queues] == [[0], [1]]'; }

# hands_over WORKER_0 WORKER_1: to which workers each hands over, as JSON.
hands_over() {
    ctl node-a status --json | jq -e --argjson first "$1" --argjson second "$2" '
        [.workers[] | .hands_over_to // []] == [$first, $second]
    ' || { ctl node-a status && return 1; }
}

# handed_over PACKETS
handed_over() {
    local packets
    packets=$(all_handed_over)
    [[ $packets == "$1" ]] || { echo "$packets were handed over" && return 1; }
}

all_handed_over() { ctl node-a status --json | jq '[.workers[].handed_over] | add'; }

# The flows, and what the receiver says of them. What a full queue loses is not what is asked.
in_order() {
    local said
    rm -f "$LAB_DIR/logs/ordered.log"
    lab_spawn ordered a1 "${ORDERED[@]}" receive "$PORT" "$FLOWS" "$DATAGRAMS"
    wait_until 10 hears a1 "$PORT" || return 1
    in_ns b1 "${ORDERED[@]}" send "$(address a1 4)" "$PORT" "$FLOWS" "$DATAGRAMS"
    wait_until 30 lab_gone ordered || return 1
    said=$(tail -n 1 "$LAB_DIR/logs/ordered.log")
    echo "$said"
    [[ $said =~ flows\ $FLOWS\ overtaken\ 0\ missing\ ([0-9]+)$ ]] && ((BASH_REMATCH[1] < FLOWS * DATAGRAMS / 4))
}

# At least one of eight flows each.
both_processed() {
    local handed all=$((FLOWS * DATAGRAMS))
    handed=$(($(all_handed_over) - before))
    echo "$handed of $all were handed over"
    ((handed > all / 20 && handed < all * 4 / 5))
}

# veth counts by queue what XDP redirected.
one_queue() {
    local counts
    counts=$(in_ns node-a ethtool -S eth0 | grep -E 'rx_queue_[01]_xdp_redirect')
    [[ $(grep -Ecv ': 0$' <<<"$counts") == 1 ]] || { echo "$counts" && return 1; }
}

main "$@"

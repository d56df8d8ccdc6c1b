#!/bin/bash
# A pod opens connections to another, as many as it can and without end, each from another port. Its sessions are
# bounded; datagrams of other pods, on the node and across nodes, are not lost meanwhile, connections that are held
# go on, and others still open one to the pod that is flooded.
# alone: it floods, and counts what others lose
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

readonly FLOW=(/usr/bin/python3 "$root/tests/lab/sequence_flow.py")
readonly HELD=(/usr/bin/python3 "$root/tests/lab/held_connection.py")
readonly HELD_PORT=7200 FLOOD_SECONDS=5 PATIENCE_SECONDS=5

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    local pod
    for pod in flooder target a1 a2; do pod_plug node-a "$pod"; done
    pod_plug node-b b1
    servers_up target
    # With these each connection has a session, which is what a flood would fill.
    sync_policies node-a "$(rule_set any "$(allow_blocks "$CLUSTER4")")" \
        "$(subjects target=any/ a1=any/ a2=any/ flooder=/)" >/dev/null
    sync_policies node-b "$(rule_set any "$(allow_blocks "$CLUSTER4")")" "$(subjects b1=any/)" >/dev/null

    beside_begins
    flood
    check "another pod reaches the one that is flooded" meanwhile sees a1 "$(address target 4)" "$(address a1 4) $(address target 4)"
    check "so does one of another node" meanwhile sees b1 "$(address target 4)" "$(address b1 4) $(address target 4)"
    wait_until 20 lab_gone flood || true
    beside_ends
    say "  $(tail -n 1 "$LAB_DIR/logs/flood.log"); the switch took $(taken) of them"
    check "the flood was one" was_flood
    check "the flooder's sessions are bounded" drops node-a session-quota
    check "no datagram of other pods was lost" none_lost
    check "a connection that is held went on" held a2
    check "so did one across nodes" held b1
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# Datagrams in both directions on the node and across nodes, and connections that are used all the time.
beside_begins() {
    local pod
    lab_spawn flow-a1 a1 "${FLOW[@]}" "$(address a1 4)" "$(address a2 4)" 7000
    lab_spawn flow-a2 a2 "${FLOW[@]}" "$(address a2 4)" "$(address a1 4)" 7000
    lab_spawn flow-a1-b1 a1 "${FLOW[@]}" "$(address a1 4)" "$(address b1 4)" 7001
    lab_spawn flow-b1 b1 "${FLOW[@]}" "$(address b1 4)" "$(address a1 4)" 7001
    for pod in a2 b1; do
        lab_spawn "serve-$pod" "$pod" "${HELD[@]}" serve "$HELD_PORT"
        wait_until 5 listens "$pod" "$HELD_PORT"
        lab_spawn "held-$pod" a1 "${HELD[@]}" hold "$(address "$pod" 4)" "$HELD_PORT" "$PATIENCE_SECONDS"
    done
    sleep 1
}

beside_ends() {
    local flow
    for flow in a1 a2 a1-b1 b1; do lab_stop "flow-$flow"; done
    lab_signal held-a2 INT
    lab_signal held-b1 INT
}

flood() {
    lab_spawn flood flooder /usr/bin/python3 "$root/tests/lab/syn_flood.py" \
        "$(address flooder 4)" "$(address target 4)" "$SERVER_PORT" "$FLOOD_SECONDS"
    wait_until 5 grep -q begins "$LAB_DIR/logs/flood.log"
}

# meanwhile COMMAND…: succeeds while the flood goes on.
meanwhile() { "$@" && lab_pid flood; }

# taken: packets of the flooder that the switch took; the rest was dropped by the queue of its interface.
taken() { ctl node-a show ports --json | jq '.[] | select(.pod.name == "flooder").counters.rx_packets'; }

# More than twice the sessions that a pod may have without an answer.
was_flood() { (($(taken) > 20000)); }

none_lost() {
    tail -qn 1 "$LAB_DIR"/logs/flow-*.log | tee /dev/stderr |
        awk '/^heard [1-9]/ { flows++; lost += $4 } END { exit !(flows == 4 && lost == 0) }'
}

held() { tail -n 1 "$LAB_DIR/logs/held-$1.log" | tee /dev/stderr | finds "^held for"; }

main "$@"

#!/bin/bash
# A restart is a non-event: whatever ends the daemon, pods keep their interfaces and connections. Under
# `vswitchd supervise`, which keeps their descriptors, no datagram that waits for a pod is lost; where the
# descriptors are lost too, `vswitch-cni --adjust` opens the interfaces again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# Seconds that a connection may take for an exchange. What comes from another node while no daemon runs is
# lost, and sent again by TCP.
patience=2
readonly FLOW_PORT=7000 HELD_PORT=7001
readonly FLOW=(/usr/bin/python3 "$root/tests/lab/sequence_flow.py")
readonly HELD=(/usr/bin/python3 "$root/tests/lab/held_connection.py")

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    VSWITCHD_ROLE=supervise node_up node-a vxlan node-b
    node_up node-b vxlan node-a
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    looks >"$LAB_DIR/before"

    under_traffic "a killed daemon" restarted daemon_ends KILL
    check "no more was lost between pods of the node than the packet in the worker's hand" lost_at_most 1
    under_traffic "a daemon that was told to stop" restarted daemon_ends TERM
    check "no datagram between pods of the node was lost" lost_at_most 0
    patience=20
    under_traffic "a daemon that hangs" restarted daemon_ends STOP
    patience=5
    under_traffic "a supervisor that was killed with its daemon" all_anew KILL
    under_traffic "a supervisor that was told to stop" all_anew TERM
    report_end
}

daemon_ends() {
    former=$(node_daemon node-a)
    kill "-$1" "$former"
}

is_another() { [[ $(node_daemon node-a) != "$former" ]] && ctl node-a status; }

restarted() {
    "$@"
    wait_until 20 is_another
}

all_anew() {
    former=$(node_daemon node-a)
    lab_signal vswitchd-node-a "$1" || return 1
    ! kill -0 "$former" 2>/dev/null || kill -KILL "$former"
    VSWITCHD_ROLE=supervise node_start node-a || return 1
    in_ns node-a "$bin/vswitch-cni" --adjust "$(node_socket node-a)"
}

# under_traffic WHAT COMMAND…
under_traffic() {
    local what=$1
    shift
    flows_begin
    check "$what: it runs again" "$@"
    sleep 2
    flows_end
    check "$what: connections between pods of the node were held" held a2
    check "$what: a connection to a pod of another node was held" held b1
    check "$what: pods have interface, index, MAC, addresses and routes as before" looks_same
    check "$what: the node reaches its pods" pings node-a "$(address a1 4)"
}

# Datagrams both ways between a1 and a2, and connections of a1 to a2 and to b1 that are used all the
# time.
flows_begin() {
    local pod
    lab_spawn flow-a1 a1 "${FLOW[@]}" "$(address a1 4)" "$(address a2 4)" "$FLOW_PORT"
    lab_spawn flow-a2 a2 "${FLOW[@]}" "$(address a2 4)" "$(address a1 4)" "$FLOW_PORT"
    for pod in a2 b1; do
        rm -f "$LAB_DIR/logs/held-$pod.log"
        lab_spawn "serve-$pod" "$pod" "${HELD[@]}" serve "$HELD_PORT"
        wait_until 5 listens "$pod" "$HELD_PORT"
        lab_spawn "held-$pod" a1 "${HELD[@]}" hold "$(address "$pod" 4)" "$HELD_PORT" "$patience"
    done
    sleep 1
}

flows_end() {
    local pod
    lab_stop flow-a1
    lab_stop flow-a2
    for pod in a2 b1; do
        lab_signal "held-$pod" INT || true
        lab_stop "serve-$pod"
    done
}

listens() { in_ns "$1" ss -Htln "sport = :$2" | grep -q LISTEN; }

held() { tail -n 1 "$LAB_DIR/logs/held-$1.log" && tail -n 1 "$LAB_DIR/logs/held-$1.log" | grep -q '^held for'; }

# lost_at_most COUNT: of both flows.
lost_at_most() {
    tail -qn 1 "$LAB_DIR/logs/flow-a1.log" "$LAB_DIR/logs/flow-a2.log" | tee /dev/stderr |
        awk -v most="$1" '/^heard [1-9]/ { flows++; lost += $4 } END { exit !(flows == 2 && lost <= most) }'
}

# What a pod and its node have of its interface.
looks() {
    local name
    for name in a1 a2; do
        in_ip "$name" -oneline -details link show dev eth0 | sed 's/ state [A-Z]*//; s/qdisc [a-z_]*//; s/ qlen [0-9]*//'
        in_ip "$name" -oneline address show dev eth0
        in_ip "$name" route show
        in_ip "$name" -6 route show
        in_ip "$name" neigh show nud permanent
    done
    in_ip node-a -oneline link show dev vsw0 | sed 's/ state [A-Z]*//'
    in_ip node-a route show
}

looks_same() { diff "$LAB_DIR/before" <(looks); }

main "$@"

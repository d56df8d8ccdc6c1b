#!/bin/bash
# One pod whose interface has several queues: two workers read of it, every flow stays in its order, and a restart of
# whatever kind loses neither the pod nor a queue. With one worker the same network gives a plain interface.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly FLOWS=16 DATAGRAMS=1000
readonly FLOW_PORT=7000 HELD_PORT=7001 NUMBERED_PORT=7002
readonly FLOW=(/usr/bin/python3 "$root/tests/lab/sequence_flow.py")
readonly HELD=(/usr/bin/python3 "$root/tests/lab/held_connection.py")
readonly NUMBERED=(/usr/bin/python3 "$root/tests/lab/numbered_flows.py")
readonly QUEUES='{"queues": 2}'

main() {
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
    underlay_attach_node node-a
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    with_workers "$cores"
    VSWITCHD_ROLE=supervise node_start node-a
    refusals
    CNI_EXTRA=$QUEUES pod_plug node-a a1
    pod_plug node-a a2
    # For one pod alone, of more queues than there are workers.
    CNI_EXTRA='{"args": {"cni": {"queues": 8}}}' pod_plug node-a a3
    check "each queue has a worker of its own" has_queues a1 2
    check "a pod has no more queues than there are workers" has_queues a3 2
    check "another pod has one queue" has_queues a2 1
    check "the kernel gives packets to two queues, without a queue of its own before them" device_has a1 2 0
    check "show ports names both workers" shows_both
    flows_in_order a1 a2
    flows_in_order a3 a2
    check "both queues were used" both_queues a1
    check "an answer finds its way to it" flows_answered
    check "CHECK passes" checks a1
    check "CHECK compares the queues" checks_not a1 '{"queues": 3}' 'is to have an interface with 3 queue'
    looks >"$LAB_DIR/before"

    under_traffic "a killed daemon" 4 restarted KILL
    check "its queues are those of before" has_queues a1 2
    under_traffic "a daemon that was told to stop" 0 restarted TERM
    under_traffic "a supervisor that was killed with its daemon" all all_anew KILL
    check "its queues are opened again" has_queues a1 2
    check "and the kernel gives packets to both" device_has a1 2 0
    flows_in_order a1 a2
    check "CHECK passes after all of it" checks a1

    fewer_workers
    check "DEL of a1" pod_unplug node-a a1
    check "DEL of a3" pod_unplug node-a a3
    check "nothing of them is kept" none_kept
    one_worker
    without_the_program
    report_end
}

# with_workers CORES: node-a's configuration.
with_workers() {
    node_config node-a vxlan | sed "s|^cores = .*|cores = [$1]|" >"$(node_dir node-a)/vswitch.toml"
}

refusals() {
    local value
    lab_add_ns refused
    for value in 0 9 -1 1.5 '"2"' '[2]'; do
        check "queues of $value are refused by name" refused "{\"queues\": $value}" "is $value; expected a whole number"
    done
    check "so are those for one pod" refused '{"args": {"cni": {"queues": 9}}}' args.cni.queues
    lab_delete_ns refused
}

# refused EXTRA WORDS
refused() {
    ! CNI_EXTRA=$1 cni node-a ADD refused >"$LAB_DIR/said" || return 1
    tee /dev/stderr <"$LAB_DIR/said" | jq -e --arg words "$2" '.code == 7 and (.msg | contains($words))'
}

port_of() {
    ctl node-a show ports --json | jq --arg address "$(address "$1" 4)" '.[] | select(any(.addresses[]; . == $address))'
}

# has_queues POD COUNT: with different workers.
has_queues() {
    port_of "$1" | tee /dev/stderr | jq -e --argjson count "$2" '
        .up and (if $count == 1 then has("queues") | not else (.queues | map(.worker) | unique | length) == $count end)'
}

shows_both() { ctl node-a show ports | tee /dev/stderr | grep -Eq ' (0,1|1,0) '; }

# device_has POD ATTACHED DETACHED
device_has() {
    in_ip "$1" -details link show dev eth0 | tee /dev/stderr |
        grep -q "multi_queue numqueues $2 numdisabled $3 " && in_ip "$1" link show dev eth0 | grep -q 'qdisc noqueue '
}

both_queues() { port_of "$1" | tee /dev/stderr | jq -e 'all(.queues[]; .rx_packets > 1000)'; }

# flows_in_order FROM TO
flows_in_order() {
    check "$FLOWS flows from $1 to $2 are whole, each in its order" in_order "$@"
}

in_order() {
    local log=$LAB_DIR/logs/numbered.log
    rm -f "$log"
    lab_spawn numbered "$2" "${NUMBERED[@]}" receive "$(address "$2" 4)" "$NUMBERED_PORT" "$FLOWS" 6
    wait_until 5 grep -q listens "$log"
    in_ns "$1" "${NUMBERED[@]}" send "$(address "$2" 4)" "$NUMBERED_PORT" "$FLOWS" "$DATAGRAMS"
    wait_until 10 lab_gone numbered
    tail -n 1 "$log" && grep -q "^came $((FLOWS * DATAGRAMS)) missing 0$" "$log"
}

flows_answered() { pings a2 "$(address a1 4)" && pings a1 "$(address a2 6)"; }

checks() { CNI_EXTRA=${2:-$QUEUES} cni node-a CHECK "$1" "$(cat "$(node_dir node-a)/pods/$1.json")"; }

# checks_not POD EXTRA WORDS
checks_not() { ! checks "$1" "$2" >"$LAB_DIR/said" && tee /dev/stderr <"$LAB_DIR/said" | grep -q "$3"; }

is_another() { [[ $(node_daemon node-a) != "$former" ]] && ctl node-a status; }

restarted() {
    former=$(node_daemon node-a)
    kill "-$1" "$former"
    wait_until 20 is_another
}

# The descriptors are lost with the supervisor.
all_anew() {
    former=$(node_daemon node-a)
    lab_signal vswitchd-node-a "$1" || return 1
    ! kill -0 "$former" 2>/dev/null || kill -KILL "$former"
    VSWITCHD_ROLE=supervise node_start node-a || return 1
    node_adjust node-a
}

# under_traffic WHAT LOST COMMAND…
under_traffic() {
    local what=$1 lost=$2
    shift 2
    lab_spawn flow-a1 a1 "${FLOW[@]}" "$(address a1 4)" "$(address a2 4)" "$FLOW_PORT"
    lab_spawn flow-a2 a2 "${FLOW[@]}" "$(address a2 4)" "$(address a1 4)" "$FLOW_PORT"
    rm -f "$LAB_DIR/logs/held.log"
    lab_spawn serve a2 "${HELD[@]}" serve "$HELD_PORT"
    wait_until 5 listens a2 "$HELD_PORT"
    lab_spawn held a1 "${HELD[@]}" hold "$(address a2 4)" "$HELD_PORT" 5
    sleep 1
    check "$what: it runs again" "$@"
    sleep 1
    lab_stop flow-a1
    lab_stop flow-a2
    lab_signal held INT || true
    lab_stop serve
    check "$what: a connection was held" held
    [[ $lost == all ]] || check "$what: no more than $lost datagrams were lost" lost_at_most "$lost"
    check "$what: the pod has interface, index, MAC, addresses and routes as before" looks_same
}

listens() { in_ns "$1" ss -Htln "sport = :$2" | grep -q LISTEN; }

held() { tail -n 1 "$LAB_DIR/logs/held.log" | tee /dev/stderr | grep -q '^held for'; }

lost_at_most() {
    tail -qn 1 "$LAB_DIR/logs/flow-a1.log" "$LAB_DIR/logs/flow-a2.log" | tee /dev/stderr |
        awk -v most="$1" '/^heard [1-9]/ { flows++; lost += $4 } END { exit !(flows == 2 && lost <= most) }'
}

looks() {
    in_ip a1 -oneline -details link show dev eth0 | sed 's/ state [A-Z]*//'
    in_ip a1 -oneline address show dev eth0
    in_ip a1 route show
    in_ip a1 -6 route show
    in_ip a1 neigh show nud permanent
}

looks_same() { diff "$LAB_DIR/before" <(looks); }

# A daemon with one worker reads one queue of the pods that have two; one with two reads both again.
fewer_workers() {
    with_workers "${cores%,*}"
    check "with one worker it runs again" restarted TERM
    check "the pod has one queue then" has_queues a1 1
    check "the kernel gives nothing to the other" device_has a1 1 1
    flows_in_order a1 a2
    with_workers "$cores"
    check "with two workers it runs again" restarted TERM
    check "the pod has both queues again" has_queues a1 2
    check "the kernel gives packets to both" device_has a1 2 0
    flows_in_order a1 a2
}

none_kept() {
    ctl node-a show ports | tee /dev/stderr | grep -c ' pod ' | grep -qx 1 || return 1
    # The supervisor's: the host port and a2, its process none.
    wait_until 5 tuns_of "$(lab_pid vswitchd-node-a)" 2 || return 1
    wait_until 5 tuns_of "$(node_daemon node-a)" 2
}

# tuns_of PROCESS COUNT: descriptors of TAPs.
tuns_of() { [[ $(find "/proc/$1/fd" -lname /dev/net/tun 2>/dev/null | wc -l) == "$2" ]]; }

# The same network on a node with one worker.
one_worker() {
    with_workers "${cores%,*}"
    check "with one worker it runs once more" restarted TERM
    CNI_EXTRA=$QUEUES pod_plug node-a a4
    check "the same network gives a plain interface" plain a4
    check "of one queue" has_queues a4 1
    flows_in_order a4 a2
    check "CHECK passes" checks a4
    check "DEL of a4" pod_unplug node-a a4
}

# A daemon that may load no program: flows would not stay in order in several queues.
without_the_program() {
    lab_stop vswitchd-node-a
    with_workers "$cores"
    sed -i '/^\[uplink\]/,/^$/d' "$(node_dir node-a)/vswitch.toml"
    VSWITCHD_UNDER=(setpriv "--bounding-set=-bpf,-sys_admin,-perfmon")
    VSWITCHD_ROLE=supervise check "without the privilege to load a program it runs" node_start node-a
    check "and has opened a2 again" node_adjust node-a
    CNI_EXTRA=$QUEUES pod_plug node-a a5
    check "a pod has one queue" has_queues a5 1
    check "which is the only one that the kernel gives packets to" device_has a5 1 1
    check "the log says why" grep -Eq 'a5 is served by one queue of 2, as flows would not stay in order' \
        "$LAB_DIR/logs/vswitchd-node-a.log"
    flows_in_order a5 a2
    check "CHECK passes" checks a5
}

plain() { ! in_ip "$1" -details link show dev eth0 | tee /dev/stderr | grep -q multi_queue; }

main "$@"

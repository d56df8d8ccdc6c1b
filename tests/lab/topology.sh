#!/bin/bash
# The lab itself, without our daemon: the underlay routes between its subnets, knows nothing of
# pods, and goes without a trace, whether whole, half made or interrupted.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    underlay_attach_node node-k
    servers_up node-a node-b outside
    routing
    nics
    leaves_nothing
    half_made
    interrupted
    report_end
}

routing() {
    local a=${HOST_ADDRESS[node-a]} b=${HOST_ADDRESS[node-b]} outside=${HOST_ADDRESS[outside]}
    check "node-a pings node-b through the router" pings node-a "$b"
    check "node-a pings node-k in its own subnet" pings node-a "${HOST_ADDRESS[node-k]}"
    check "node-a fetches from node-b, both see the same addresses" sees node-a "$b" "$a $b"
    check "a file from node-b to node-a arrives whole" transfers node-a "$b"
    check "outside fetches from node-a" sees outside "$a" "$outside $a"
    check "the router has no route to pods" no_route router 198.18.1.2
    check "outside has no route to pods" no_route outside 198.18.1.2
}

no_route() { ! in_ip "$1" route get "$2" 2>/dev/null; }

nics() {
    local queues
    queues=$(in_ip node-a -json -details link show dev eth0 |
        jq -r '.[0] | "\(.num_tx_queues) \(.num_rx_queues)"')
    check "a node's NIC has two queues each way" test "$queues" = "2 2"
    check "the wire to a node completes checksums" completes_checksums
}

completes_checksums() { in_ns router ethtool -k to-node-a | finds '^tx-checksumming: off'; }

leaves_nothing() {
    local id=$LAB_ID dir=$LAB_DIR pids
    pids=$(cat "$LAB_DIR"/pids/* | cut -d' ' -f1)
    lab_down
    check "no namespace is left" nothing_named "$id"
    check "no directory is left" test ! -e "$dir"
    check "no process is left" none_run "$pids"
}

nothing_named() { ! ip netns list | grep "^vsw-$1-"; }

none_run() {
    local pid
    for pid in $1; do
        ! kill -0 "$pid" 2>/dev/null || { echo "pid $pid still runs" && return 1; }
    done
}

half_made() {
    local id
    lab_create
    id=$LAB_ID
    lab_add_ns router
    # Written down, and not made: as if `up` had been killed between the two.
    printf 'node-a\n' >>"$LAB_DIR/namespaces"
    lab_down
    check "a half made lab goes as well" nothing_named "$id"
}

# This script once more, in a process group of its own, is ended while its lab stands.
interrupted() {
    local id pid note=$LAB_PARENT/vswitch-interrupted-$$
    setsid "$0" stand "$note" 2>/dev/null &
    pid=$!
    wait_until 10 stands "$note" || true
    id=$(cat "$note")
    rm -f "$note"
    # TERM, because bash lets a background job ignore INT; both take the same way out.
    kill -TERM -- "-$pid"
    wait "$pid" 2>/dev/null || true
    check "a lab that is interrupted takes itself down" nothing_named "$id"
    check "and its directory" test ! -e "$LAB_PARENT/vswitch-lab-$id"
}

# stand NOTE: writes its lab's id into NOTE, and waits to be ended.
stand() {
    lab_trap
    lab_create
    underlay_up
    servers_up outside
    printf '%s\n' "$LAB_ID" >"$1"
    sleep 60
}

stands() { [[ -s $1 ]]; }

if [[ ${1:-} == stand ]]; then stand "$2"; else main; fi

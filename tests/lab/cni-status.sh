#!/bin/bash
# STATUS names what is wrong: code 50 when no pod can be added, 51 when pods suffer, with the reason;
# and succeeds again when it is mended. ADD and DEL go on as far as they can.
# alone: another program changes the host port at a pace that must not slow down
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

SMALL=${POD_PREFIX4[node-a]%/*}/30

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    # Two addresses, the gateway's and one for a pod.
    lab_stop vswitchd-node-a
    sed -i "s|${POD_PREFIX4[node-a]}|$SMALL|" "$(node_dir node-a)/vswitch.toml"
    node_start node-a
    check "STATUS of a node that is well" well node-a
    pool_empty
    interface_lost
    worker_stopped
    uplink
    host_port
    uplink_gone
    report_end
}

pool_empty() {
    pod_plug node-a a1
    check "no address is left: no pod can be added" ill node-a 50 "no address of $SMALL is left"
    lab_add_ns a2
    check_not "ADD fails" cni node-a ADD a2
    check "DEL succeeds" pod_unplug node-a a1
    check "and STATUS is well again" well node-a
}

interface_lost() {
    pod_plug node-a a3
    in_ip a3 link del eth0
    check "a pod that lost its interface suffers" wait_until 5 ill node-a 51 "lost their interface"
    check "until its DEL" pod_unplug node-a a3
    check "STATUS is well again" well node-a
}

# A debugger holds the thread.
worker_stopped() {
    /usr/bin/python3 "$root/tests/lab/hold_thread.py" "$(lab_pid vswitchd-node-a)" worker-0 &
    local holder=$!
    check "a worker that does not turn" wait_until 10 ill node-a 51 "worker 0 does not turn"
    check "status names it" status_says "worker 0 does not turn"
    check_not "ADD fails" cni node-a ADD a2
    kill "$holder"
    wait "$holder" || true
    check "and well again when it does" wait_until 10 well node-a
    check "ADD succeeds" cni node-a ADD a2
    check "DEL" cni node-a DEL a2
}

uplink() {
    in_ip node-a link set eth0 down
    check "the uplink is down" wait_until 5 ill node-a 51 "the uplink eth0 is down"
    in_ip node-a link set eth0 up
    check "and up again" wait_until 5 well node-a
}

# Another program deletes it again and again: after three times it is left alone.
host_port() {
    in_ip node-a link del vsw0
    check "the host port is put right at once" wait_until 3 well node-a
    for _ in 1 2 3; do
        wait_until 3 in_ip node-a link show dev vsw0 && in_ip node-a link del vsw0
    done
    check "a host port that is deleted again and again is gone" wait_until 3 no_host_port
    check "STATUS names it" ill node-a 51 "changes the host port again and again"
    check "the other node is well" well node-b
}

no_host_port() { ! in_ip node-a link show dev vsw0; }

uplink_gone() {
    in_ip node-b link del eth0
    check "the uplink is gone" wait_until 5 ill node-b 51 "the uplink eth0 is gone"
    lab_add_ns b1
    check "ADD and DEL still succeed" add_and_del
}

add_and_del() { cni node-b ADD b1 && cni node-b DEL b1; }

# well NODE
well() { CNI_EXTRA='{"cniVersion": "1.1.0"}' cni "$1" STATUS none; }

# ill NODE CODE REASON
ill() {
    local said
    said=$(CNI_EXTRA='{"cniVersion": "1.1.0"}' cni "$1" STATUS none) && return 1
    jq -e --argjson code "$2" --arg reason "$3" \
        '.code == $code and (.details | contains($reason))' <<<"$said"
}

status_says() {
    ctl node-a status | finds "pods suffer: $1" &&
        ctl node-a status --json | jq -e --arg reason "$1" 'any(.problems[]; .reason | contains($reason))'
}

main "$@"

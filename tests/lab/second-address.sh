#!/bin/bash
# The NIC gets a second address, as keepalived gives it: a daemon that starts again goes on under the one by which
# the other nodes know it, killed or reloaded as well. Where that one is gone and two others are there, the
# operator has to choose, and is told between which.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly VIRTUAL=198.51.100.5 OTHER=198.51.100.6

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-b b1
    check "a1 reaches b1" pings a1 "$(address b1 4)"
    # Otherwise the second of a subnet goes with the first.
    in_ns node-a sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1
    in_ip node-a address add "$VIRTUAL/25" dev eth0
    goes_on "it goes on with a second address"
    kill -HUP "$(lab_pid vswitchd-node-a)"
    check "a reload is accepted" wait_until 5 finds 'the configuration is reloaded' "$LAB_DIR/logs/vswitchd-node-a.log"
    check "the configuration is valid" \
        in_ns node-a "$bin/vswitchd" --check --config "$(node_dir node-a)/vswitch.toml"
    lab_signal vswitchd-node-a KILL
    check "it starts again" node_start node-a
    check "the pod's interface is opened again" node_adjust node-a
    goes_on "it is known by the same address"
    # The kernel lists the older one first.
    lab_stop vswitchd-node-a
    in_ip node-a address del "${HOST_ADDRESS[node-a]}/25" dev eth0
    in_ip node-a address add "${HOST_ADDRESS[node-a]}/25" dev eth0
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    check "it starts, whichever is the first" node_start node-a
    check "the pod's interface is opened again" node_adjust node-a
    goes_on "it is known by the same address"
    ambiguous
    report_end
}

# goes_on WHAT
goes_on() {
    check "$1" known_by "${HOST_ADDRESS[node-a]}"
    check "and b1 is reached by it" wait_until 5 pings a1 "$(address b1 4)"
}

known_by() { [[ $(ctl node-a status --json | jq -r .uplink.address) == "$1" ]]; }

ambiguous() {
    lab_stop vswitchd-node-a
    in_ip node-a address add "$OTHER/25" dev eth0
    in_ip node-a address del "${HOST_ADDRESS[node-a]}/25" dev eth0
    check_not "with two others in its place it does not start" node_start node-a
    check "and names them" finds \
        "eth0 has several IPv4 addresses ($VIRTUAL, $OTHER); choose one by uplink.address" \
        "$LAB_DIR/logs/vswitchd-node-a.log"
    in_ip node-a address del "$VIRTUAL/25" dev eth0
    check "the only one is taken" node_start node-a
    check "as ever" known_by "$OTHER"
}

main "$@"

#!/bin/bash
# The underlay changes under the running daemons: the router's MAC, the way to a peer, the NIC's
# state and address; and at last the NIC itself goes. Pods reach one another again within seconds, and a worker
# without a NIC neither ends nor burns its core.
# alone: a worker that spins would get too little of a busy core to be noticed.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# A dead next hop is noticed by the kernel; what it announces is taken over at once.
readonly PATIENCE_SECONDS=5

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    check "a1 reaches b1" pings a1 "$(address b1 4)"
    router_mac
    other_gateway
    nic_flap
    address_lost
    nic_gone
    report_end
}

# The router's MAC changes, as when a standby takes over, and the node hears of it by ARP. Twice: the
# bridge that is our router goes on answering to the first one, which it has from one of its ports.
router_mac() {
    local mac
    for mac in 02:00:00:00:aa:01 02:00:00:00:aa:02; do
        in_ip router link set lan-a address "$mac"
        check "the router's ARP with its MAC $mac" pings router "${HOST_ADDRESS[node-a]}"
        check "is heard, and b1 is reached by it" recovers a1 b1
        check "and shown" wait_until "$PATIENCE_SECONDS" knows_mac node-a "$mac"
    done
}

knows_mac() { ctl "$1" show neighbors --json | finds "$2"; }

# node-b is reached by another router of the same subnet.
other_gateway() {
    in_ip router link add other type veth peer name other-lan
    in_ip router link set other-lan master lan-a up
    in_ip router address add 198.51.100.2/25 dev other
    in_ip router link set other up
    in_ip node-a route add "${LAN_PREFIX[lan-b]}" via 198.51.100.2
    check "another way to node-b is taken" wait_until "$PATIENCE_SECONDS" goes_by node-a 198.51.100.2
    check "and b1 is reached by it" recovers a1 b1
    in_ip node-a route del "${LAN_PREFIX[lan-b]}"
    check "and the first one again" \
        wait_until "$PATIENCE_SECONDS" goes_by node-a "${LAN_GATEWAY[lan-a]}"
    check "and b1 is reached" recovers a1 b1
}

goes_by() { ctl "$1" show peers --json | finds "\"$2\""; }

nic_flap() {
    in_ip node-a link set eth0 down
    check "without the NIC pods of one node reach one another" pings a1 "$(address a2 4)"
    in_ns a1 ping -q -n -c 20 -i 0.05 -W 1 "$(address b1 4)" >/dev/null 2>&1 || true
    check "and the worker sleeps" sleeps node-a
    in_ip node-a link set eth0 up
    in_ip node-a route add default via "${LAN_GATEWAY[lan-a]}"
    check "a NIC that is up again carries packets again" recovers a1 b1
    check "in both directions" recovers b1 a1
}

address_lost() {
    local address=${HOST_ADDRESS[node-a]}
    in_ip node-a address del "$address/25" dev eth0
    check "an address that the NIC has lost is named in status" wait_until 5 says_lost node-a
    in_ip node-a address add "$address/25" dev eth0
    in_ip node-a route add default via "${LAN_GATEWAY[lan-a]}"
    check "with the address back b1 is reached" recovers a1 b1
    check "and status does not name it any more" wait_until 5 says_nothing_lost node-a
}

says_lost() { ctl "$1" status --json | finds 'does not have'; }

says_nothing_lost() { ctl "$1" status --json | jq -e 'all(.warnings[]; contains("does not have") | not)'; }

nic_gone() {
    in_ip node-a link del eth0
    check "a NIC that is gone is named in status" wait_until 5 says_gone node-a
    check "pods of the node reach one another" pings a1 "$(address a2 4)"
    in_ns a1 ping -q -n -c 5 -i 0.05 -W 1 "$(address b1 4)" >/dev/null 2>&1 || true
    check "the worker sleeps" sleeps node-a
    check "vswitchd ends well" lab_signal vswitchd-node-a TERM
}

says_gone() { ctl "$1" status --json | finds 'eth0 is gone'; }

recovers() { wait_until "$PATIENCE_SECONDS" in_ns "$1" ping -q -n -c 1 -W 1 "$(address "$2" 4)"; }

# Over half a second it uses less than a fifth of a core.
sleeps() {
    local pid before after
    pid=$(lab_pid "vswitchd-$1")
    before=$(ticks "$pid")
    sleep 0.5
    after=$(ticks "$pid")
    ((after - before < 10)) || { echo "it used $((after - before)) ticks of 50" && return 1; }
}

ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

main "$@"

#!/bin/bash
# What befalls the kernel's routing table while it is the only source: it is flushed, links go down
# and up, the NIC has another name or another address, there are more changes than anybody can be
# told of. The vSwitch has in the end what the kernel has, and forwards by it within a second.
# alone: 30,000 routes at once hold the kernel's routing lock, for which the others would wait.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/kernel_routes.sh
. "$root/scripts/lib/kernel_routes.sh"

readonly MANY_ROUTES=30000

main() {
    setup_binaries
    lab_trap
    lab_create
    three_nodes_up
    pod_plug node-a a1
    pod_plug node-b b1
    pod_plug node-k k1
    routes_on_the_link
    routes_through_the_overlay
    check "pods on the link are reached" soon reaches_once a1 k1
    check "and through the overlay" soon reaches_once a1 b1
    flushed
    while_busy
    address_lost
    renumbered
    link_flaps
    renamed
    lost_count
    at_random
    report_end
}

flushed() {
    in_ip node-a route flush root "$CLUSTER4" proto boot
    check "a flushed table is followed" soon goes_nowhere node-a "${POD_PREFIX4[node-b]}"
    routes_on_the_link
    routes_through_the_overlay
    check "and the routes that come back" soon reaches_once a1 k1
    check "through the overlay too" soon reaches_once a1 b1
}

# Routes that go and come all the time under traffic: in the end they are there.
while_busy() {
    local round
    lab_spawn busy a1 ping -q -n -i 0.002 "$(address k1 4)"
    for ((round = 0; round < 100; round++)); do
        printf 'route del %s\nroute add %s via %s\n' "${POD_PREFIX4[node-k]}" \
            "${POD_PREFIX4[node-k]}" "${HOST_ADDRESS[node-k]}"
    done | in_ip node-a -batch -
    check "a route that goes and comes a hundred times is there in the end" \
        soon reaches_once a1 k1
    lab_stop busy
}

address_lost() {
    local address=${HOST_ADDRESS[node-a]}
    in_ip node-a address del "$address/25" dev eth0
    in_ip node-a address add "$address/25" dev eth0
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    routes_on_the_link
    routes_through_the_overlay
    check "an address that goes and comes back" \
        once_known node-a "${HOST_ADDRESS[node-k]}" reaches_once a1 k1
    check "does not part the overlay for long" \
        once_known node-a "${HOST_ADDRESS[node-b]}" reaches_once a1 b1
}

# Another address in place of the first: the daemon goes on by it, and so do the other nodes, whose
# routes say so. Then the first again.
renumbered() {
    local first=${HOST_ADDRESS[node-a]} second=198.51.100.21
    renumber "$first" "$second"
    check "another address is this node's" soon has_address "$second"
    check "and its tunnels end there" once_known node-a "${HOST_ADDRESS[node-b]}" reaches_once a1 b1
    check "in both directions" soon reaches_once b1 a1
    check "with nothing of the old one on the wire" \
        wire "udp port 4789" "$second" to-node-b pings a1 "$(address b1 4)"
    check "pods on the link are reached" \
        once_known node-a "${HOST_ADDRESS[node-k]}" reaches_once a1 k1
    check "and nothing is left to complain of" needs_no_attention
    renumber "$second" "$first"
    check "and the first again" once_known node-a "${HOST_ADDRESS[node-b]}" reaches_once a1 b1
}

# renumber OLD NEW: node-a, and the routes to it.
renumber() {
    in_ip node-a address del "$1/25" dev eth0
    in_ip node-a address add "$2/25" dev eth0
    HOST_ADDRESS[node-a]=$2
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    routes_on_the_link
    routes_through_the_overlay
}

has_address() { ctl node-a status --json | jq -e ".uplink.address == \"$1\"" >/dev/null; }

needs_no_attention() {
    ctl node-a status --json | jq -e 'all(.warnings[]; contains("does not have") | not)'
}

link_flaps() {
    in_ip node-a link set eth0 down
    check "the kernel's routes go with the link" soon goes_nowhere node-a "${POD_PREFIX4[node-k]}"
    # It would swallow the request, and the kernel repeats that after a second at the earliest.
    check "and nobody is asked for on it" nobody_is_asked_for node-a
    in_ip node-a link set eth0 up
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    routes_on_the_link
    check "and come back with it" once_known node-a "${HOST_ADDRESS[node-k]}" reaches_once a1 k1
    check "and so does the overlay" once_known node-a "${HOST_ADDRESS[node-b]}" reaches_once a1 b1
}

nobody_is_asked_for() {
    in_ip "$1" -json neigh show dev eth0 |
        jq -e 'all(.[]; .state | any(. == "INCOMPLETE" or . == "FAILED") | not)'
}

renamed() {
    in_ip node-a link set eth0 down
    in_ip node-a link set eth0 name nic7
    in_ip node-a link set nic7 up
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    routes_on_the_link
    check "the NIC under another name is the same NIC" \
        once_known node-a "${HOST_ADDRESS[node-k]}" reaches_once a1 k1
    check "and shown under it" is_named node-a nic7
    in_ip node-a link set nic7 down
    in_ip node-a link set nic7 name eth0
    in_ip node-a link set eth0 up
    in_ip node-a route replace default via "${LAN_GATEWAY[lan-a]}"
    routes_on_the_link
    check "and the old name is as good" \
        once_known node-a "${HOST_ADDRESS[node-k]}" reaches_once a1 k1
    check "for the overlay too" once_known node-a "${HOST_ADDRESS[node-b]}" reaches_once a1 b1
}

is_named() { ctl "$1" status --json | jq -e ".uplink.interface == \"$2\"" >/dev/null; }

# once_read COMMAND…: it succeeds in the end. To read so many routes, and to compare them, takes its time.
once_read() { wait_until 15 "$@"; }

# More changes than the kernel keeps for a reader who does not read: it says so, and the table is
# read anew.
lost_count() {
    local pid
    pid=$(lab_pid vswitchd-node-a)
    kill -STOP "$pid"
    many add | in_ip node-a -batch -
    in_ip node-a route del "${POD_PREFIX4[node-k]}"
    in_ip node-a route replace "${POD_PREFIX4[node-b]}" via "${HOST_ADDRESS[node-k]}"
    kill -CONT "$pid"
    check "after $MANY_ROUTES routes that nobody listened to it has them all" \
        once_read has_as_the_kernel node-a
    check "and not the one that went meanwhile" goes_nowhere node-a "${POD_PREFIX4[node-k]}"
    routes_on_the_link
    routes_through_the_overlay
    check "among so many a route is followed all the same" soon reaches_once a1 k1
    check "in the overlay too" soon reaches_once a1 b1
    many del | in_ip node-a -batch -
    check "all of them go again" once_read has_as_the_kernel node-a
}

# Host routes in the upper half of the cluster prefix.
many() {
    awk -v count="$MANY_ROUTES" -v what="$1" -v via="${HOST_ADDRESS[node-k]}" 'BEGIN {
        for (i = 0; i < count; i++)
            printf "route %s 198.18.%d.%d/32 via %s\n", what, 128 + int(i / 256), i % 256, via
    }'
}

# The kernel's routes by a gateway on the NIC, and what the vSwitch has of them, one a line. Of
# several to one destination the kernel uses the first.
of_the_kernel() {
    in_ip "$1" -json -4 route show root "$CLUSTER4" |
        jq -r '.[] | select(.dev == "eth0" and .gateway)
               | "\(.dst | if contains("/") then . else . + "/32" end) \(.gateway)"' |
        awk '!seen[$1]++' | sort
}

of_the_vswitch() {
    ctl "$1" show fib --json | jq -r '.[] | select(.source == "kernel")
        | select(.target | startswith("direct via ")) | select(.prefix | contains(":") | not)
        | "\(.prefix) \(.target | split(" ")[2])"' | sort
}

has_as_the_kernel() { cmp -s <(of_the_kernel "$1") <(of_the_vswitch "$1"); }

# Any sequence of changes ends in the same as a fresh look.
at_random() {
    check "random changes are followed" changes_are_followed
    in_ip node-a route flush root 198.18.128.0/17
}

changes_are_followed() {
    local round
    for round in 1 2 3 4 5; do
        commands "$round" | in_ip node-a -force -batch - >/dev/null 2>&1 || true
        soon has_as_the_kernel node-a || {
            echo "round $round differs: $(diff <(of_the_kernel node-a) <(of_the_vswitch node-a) | head -n 4)"
            return 1
        }
    done
}

# commands SEED: some fail, as a route of that sort is there or is not.
commands() {
    awk -v seed="$1" 'BEGIN {
        srand(seed)
        split("add replace append prepend del change", words, " ")
        for (i = 0; i < 400; i++)
            printf "route %s 198.18.%d.0/24 via 198.51.100.%d\n",
                words[1 + int(rand() * 6)], 130 + int(rand() * 8), 20 + int(rand() * 5)
    }'
}

main "$@"

#!/bin/bash
# The kernel's routing table as the only source: three nodes without a single configured peer, and
# routes as people, daemons and clouds write them. Each change is followed at once.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/kernel_routes.sh
. "$root/scripts/lib/kernel_routes.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    three_nodes_up
    pod_plug node-a a1
    pod_plug node-b b1
    pod_plug node-k k1
    check "without routes nobody is reached" cannot_reach a1 k1
    on_the_link
    through_the_overlay
    several_next_hops
    the_kernels_own
    refused
    of_chosen_protocols
    central_router
    report_end
}

on_the_link() {
    routes_on_the_link
    check "a route via a node on the link is followed, as it is" soon reaches_once a1 k1
    check "and shown with its source" \
        goes node-a "${POD_PREFIX4[node-k]}" "direct via ${HOST_ADDRESS[node-k]}"
    in_ip node-a -6 route add "${POD_PREFIX6[node-k]}" via "$(link_local node-k)" dev eth0
    in_ip node-k -6 route add "${POD_PREFIX6[node-a]}" via "$(link_local node-a)" dev eth0
    check "and so is an IPv6 route via a link-local address" soon reaches_once a1 k1 6
    in_ip node-a route del "${POD_PREFIX4[node-k]}"
    check "a route that is gone is not followed" soon goes_nowhere node-a "${POD_PREFIX4[node-k]}"
    check "and nobody is reached by it" cannot_reach a1 k1
    in_ip node-a route add "${POD_PREFIX4[node-k]}" via "${HOST_ADDRESS[node-k]}" metric 20
    in_ip node-a route add blackhole "${POD_PREFIX4[node-k]}" metric 90
    check "the lowest metric counts" soon reaches_once a1 k1
    in_ip node-a route del "${POD_PREFIX4[node-k]}" metric 20
    check "and the next one when it is gone" soon goes node-a "${POD_PREFIX4[node-k]}" blackhole
    in_ip node-a route del blackhole "${POD_PREFIX4[node-k]}"
}

through_the_overlay() {
    routes_through_the_overlay
    check "a route by the host port leads through the overlay" soon reaches_once a1 b1
    check "to a peer that the kernel named" has_kernel_peer node-a "${HOST_ADDRESS[node-b]}"
    check "in VXLAN" goes node-a "${POD_PREFIX4[node-b]}" "peer ${HOST_ADDRESS[node-b]} vxlan"
    check "the node itself goes the same way" soon reaches_once node-a b1
    in_ip node-a -6 route add "${POD_PREFIX6[node-b]}" \
        via "::ffff:${HOST_ADDRESS[node-b]}" dev vsw0 onlink
    in_ip node-b -6 route add "${POD_PREFIX6[node-a]}" \
        via "::ffff:${HOST_ADDRESS[node-a]}" dev vsw0 onlink
    check "IPv6 too, by the IPv4 address of the node" soon reaches_once a1 b1 6
}

has_kernel_peer() {
    ctl "$1" show peers --json |
        jq -e --arg address "$2" 'any(.[]; .address == $address and .source == "kernel")' >/dev/null
}

several_next_hops() {
    local second=198.51.100.14
    in_ip node-k address add "$second/25" dev eth0
    in_ip node-a route replace "${POD_PREFIX4[node-k]}" \
        nexthop via "${HOST_ADDRESS[node-k]}" weight 1 nexthop via "$second" weight 3
    check "several next hops are followed" soon goes node-a "${POD_PREFIX4[node-k]}" \
        "direct via ${HOST_ADDRESS[node-k]} weight 1, direct via $second weight 3"
    check "and carry packets" soon reaches_once a1 k1
    in_ip node-a nexthop add id 7 via "$second" dev eth0
    in_ip node-a route replace "${POD_PREFIX4[node-k]}" nhid 7
    check "a next-hop object is followed" \
        soon goes node-a "${POD_PREFIX4[node-k]}" "direct via $second"
    in_ip node-a nexthop replace id 7 via "${HOST_ADDRESS[node-k]}" dev eth0
    check "and when it changes" \
        soon goes node-a "${POD_PREFIX4[node-k]}" "direct via ${HOST_ADDRESS[node-k]}"
    in_ip node-a nexthop del id 7
    check "and when it goes, with its route" soon goes_nowhere node-a "${POD_PREFIX4[node-k]}"
    in_ip node-k address del "$second/25" dev eth0
    routes_on_the_link
    check "the route is back" soon reaches_once a1 k1
}

# A prefix behind another interface of the node is the kernel's to forward.
the_kernels_own() {
    in_ip node-a link add behind0 type veth peer name behind1
    in_ip node-a address add 198.18.90.1/24 dev behind0
    in_ip node-a link set behind0 up
    in_ip node-a link set behind1 up
    check "a prefix on another link is left to the kernel" soon goes node-a 198.18.90.0/24 host
    check "which answers there" soon in_ns a1 ping -q -n -c 1 -W 0.3 198.18.90.1
    in_ip node-a link del behind0
    check "and not any more once the link is gone" soon goes_nowhere node-a 198.18.90.0/24
}

refused() {
    in_ip node-a route add 198.18.91.0/24 dev vsw0
    in_ip node-a route add 198.18.92.0/24 via 198.18.93.1 dev vsw0 onlink
    in_ip node-a route add blackhole "${POD_PREFIX4[node-a]}"
    check "what would do harm is refused and named" soon refuses node-a 2
    check "and what is meant for this node's own pods ignored" reaches_once node-a a1
    in_ip node-a route del 198.18.91.0/24
    in_ip node-a route del 198.18.92.0/24
    in_ip node-a route del blackhole "${POD_PREFIX4[node-a]}"
    check "and forgotten when it is gone" soon refuses node-a 0
}

refuses() { ctl "$1" status --json | jq -e ".kernel_routes.refused == $2" >/dev/null; }

# Of the protocols that are chosen, by name or number, and no other.
of_chosen_protocols() {
    in_ip node-a route replace 198.18.94.0/24 via "${HOST_ADDRESS[node-k]}" proto bird
    in_ip node-a route replace 198.18.95.0/24 via "${HOST_ADDRESS[node-k]}" proto 186
    in_ip node-a route replace 198.18.96.0/24 via "${HOST_ADDRESS[node-k]}" proto static
    check "routes of every protocol are followed" soon goes node-a 198.18.96.0/24 direct
    reconfigure 'protocols = ["bird", 186]'
    check "or of none but the chosen" soon goes_nowhere node-a 198.18.96.0/24
    check "by name" goes node-a 198.18.94.0/24 direct
    check "and by number" goes node-a 198.18.95.0/24 direct
    in_ip node-a route replace 198.18.94.0/24 via "${HOST_ADDRESS[node-k]}" proto static
    check "one whose place another took is gone" soon goes_nowhere node-a 198.18.94.0/24
    reconfigure
    check "and all are back without a choice" soon goes node-a 198.18.94.0/24 direct
    in_ip node-a route flush root 198.18.94.0/23
    in_ip node-a route flush root 198.18.96.0/24
}

# reconfigure LINE…: of [routes.kernel], on node-a.
reconfigure() {
    configure node-a vxlan "$@"
    kill -HUP "$(lab_pid vswitchd-node-a)"
}

# The router has the whole table, and every node a default route to it: no encapsulation.
central_router() {
    local node
    underlay_route_pods node-a
    underlay_route_pods node-b
    for node in node-a node-b; do
        in_ip "$node" route flush root "$CLUSTER4" proto boot
        configure "$node" vxlan 'covering = true'
        kill -HUP "$(lab_pid "vswitchd-$node")"
    done
    check "the default route to a central router is taken for the cluster's prefix" \
        soon goes node-a "$CLUSTER4" "direct via ${LAN_GATEWAY[lan-a]}"
    check "and pods of two subnets reach one another by it" soon reaches_once a1 b1
    check "in both directions" soon reaches_once b1 a1
    in_ip node-a route del default
    check "without it they do not" soon goes_nowhere node-a "$CLUSTER4"
    in_ip node-a route add default via "${LAN_GATEWAY[lan-a]}"
    check "and with it again they do" soon reaches_once a1 b1
}

main "$@"

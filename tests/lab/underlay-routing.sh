#!/bin/bash
# Pods without a tunnel, as the tutorials set it up, each way by the kernel's routes alone:
#
#   (a) every node of one subnet has a static route to each other node's pods;
#   (b) a router has the whole table, and every node nothing but its default route;
#   (c) a cloud: user-defined routes in the fabric, nodes that reach nobody but the gateway, which
#       answers every ARP request.
#
# Packets are on the wire as the pods sent them and enter through the pinhole. Pods and processes of
# the nodes talk to all pods, over IPv4 and IPv6, and to the world outside in their node's name.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly ONE_SUBNET=(node-a node-k) ALL=(node-a node-k node-b)
readonly PATIENCE_SECONDS=5

main() {
    local node
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    # What is sent back by the interface it came from is so on purpose.
    in_ns router sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.lan-a.send_redirects=0
    for node in "${ALL[@]}"; do
        underlay_attach_node "$node"
        in_ip "$node" -6 route add default via "$(link_local router "${HOST_LAN[$node]}")" dev eth0
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
        configure "$node" false
        node_start "$node"
    done
    pod_plug node-a a1
    pod_plug node-k k1
    pod_plug node-b b1
    servers_up a1 k1 b1 "${ALL[@]}" outside
    static_routes
    central_router
    cloud_routes
    report_end
}

# configure NODE COVERING: whether its default route is taken for the cluster's prefixes.
configure() {
    {
        node_config "$1" direct
        printf '\n[routes.kernel]\ncovering = %s\n' "$2"
    } >"$(node_dir "$1")/vswitch.toml"
}

# link_local NAME INTERFACE
link_local() {
    in_ip "$1" -6 -json address show dev "$2" scope link | jq -r '[.[].addr_info[]?.local][0] // empty'
}

static_routes() {
    heading "(a) a static route on each node"
    static_route node-a node-k
    static_route node-k node-a
    talk_directly
    matrix a1 k1
    host_by_its_route node-a a1 node-k k1
    host_by_its_route node-k k1 node-a a1
    world_outside a1 node-a
    world_outside k1 node-k
}

# host_by_its_route NODE POD OTHER OTHERS_POD: the static route is the node's too. Its processes go by
# it, and by the NIC, whose address they have. Over IPv6 that has none, and so they have the one of vsw0 that
# is not deprecated: the route names no other.
host_by_its_route() {
    local address address6
    address=$(address "$4" 4) address6=$(address "$4" 6)
    check "processes of $1 talk to $4" sees "$1" "$address" "${HOST_ADDRESS[$1]} $address"
    check "over IPv6 too" sees "$1" "$address6" "$(masquerade6 "$1") $address6"
    check "and $2 to those of $3" talks "$2" "$3" 4
    check "over IPv6 too" talks "$2" "$3" 6
}

# static_route FROM TO: on one node, to the other's pods.
static_route() {
    in_ip "$1" route add "${POD_PREFIX4[$2]}" via "${HOST_ADDRESS[$2]}"
    in_ip "$1" -6 route add "${POD_PREFIX6[$2]}" via "$(link_local "$2" eth0)" dev eth0
}

central_router() {
    local node
    heading "(b) one router with the whole table"
    in_ip node-a route del "${POD_PREFIX4[node-k]}"
    in_ip node-a -6 route del "${POD_PREFIX6[node-k]}"
    in_ip node-k route del "${POD_PREFIX4[node-a]}"
    in_ip node-k -6 route del "${POD_PREFIX6[node-a]}"
    for node in "${ALL[@]}"; do
        underlay_route_pods "$node"
        configure "$node" true
        kill -HUP "$(lab_pid "vswitchd-$node")"
    done
    everybody_talks
}

# The bridge that is the nodes' subnet lets none of them speak to another.
cloud_routes() {
    local node
    heading "(c) routes of the fabric, and a gateway that answers for everybody"
    for node in "${ONE_SUBNET[@]}"; do
        in_ip router link set "to-$node" type bridge_slave isolated on
    done
    # Whom they knew on the link, they would go on sending to.
    in_ip node-a neigh del "${HOST_ADDRESS[node-k]}" dev eth0 2>/dev/null || true
    in_ip node-k neigh del "${HOST_ADDRESS[node-a]}" dev eth0 2>/dev/null || true
    in_ns router sysctl -qw net.ipv4.conf.lan-a.proxy_arp_pvlan=1 net.ipv4.conf.lan-a.proxy_arp=1
    everybody_talks
    check "node-k's address has the gateway's MAC" answers_for node-a "${HOST_ADDRESS[node-k]}"
}

everybody_talks() {
    local node
    for node in "${ALL[@]}"; do
        check "$node sends to its router" wait_until "$PATIENCE_SECONDS" \
            goes "$node" "$CLUSTER4" "direct via ${LAN_GATEWAY[${HOST_LAN[$node]}]}"
    done
    talk_directly
    matrix a1 k1 b1 "${ALL[@]}"
    world_outside a1 node-a
    world_outside b1 node-b
}

# goes NODE PREFIX TARGET: by a route of the kernel's.
goes() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" --arg target "$3" \
        'any(.[]; .prefix == $prefix and .source == "kernel" and .target == $target)'
}

talk_directly() {
    check "a1 reaches k1" wait_until "$PATIENCE_SECONDS" pings a1 "$(address k1 4)"
    check "with its own address on the wire" \
        wire icmp "IP $(address a1 4) > $(address k1 4): ICMP echo request" to-node-k \
        pings a1 "$(address k1 4)"
}

# world_outside POD NODE: the pod reaches it in its node's name, and it reaches the node.
world_outside() {
    local node=${HOST_ADDRESS[$2]} outside=${HOST_ADDRESS[outside]}
    check "$1 fetches from outside, seen as $2" sees "$1" "$outside" "$node $outside"
    check "outside fetches from $2" sees outside "$node" "$outside $node"
}

# answers_for NODE ADDRESS
answers_for() {
    local gateway
    pings "$1" "$2" || return 1
    gateway=$(in_ip router -json link show dev lan-a | jq -r '.[0].address')
    in_ip "$1" -json neigh show "$2" dev eth0 | jq -e --arg mac "$gateway" '.[0].lladdr == $mac'
}

main "$@"

#!/bin/bash
# The kernel's routing table as the only source: three nodes without a single configured peer, and
# routes as people, daemons and clouds write them. Each change is followed at once, and whatever
# befalls the table (flushed, links down and up, another name, an address lost, more changes than
# anybody can be told of), the vSwitch has in the end what the kernel has.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# Traffic follows the kernel within a second.
readonly SOON_SECONDS=1
# The kernel itself repeats a request for a MAC, which nobody may hear while links come up, after a
# second.
readonly PATIENCE_SECONDS=8
readonly MANY_ROUTES=30000

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
    flushed
    while_busy
    address_lost
    renumbered
    link_flaps
    renamed
    lost_count
    at_random
    central_router
    report_end
}

# node-a and node-k share a subnet, node-b is behind the router.
three_nodes_up() {
    local node
    underlay_up
    for node in node-a node-b node-k; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
        configure "$node" vxlan
        node_start "$node"
    done
}

# configure NODE ENCAPSULATION LINE…: no peer, the kernel's routes, and further lines of that.
configure() {
    local node=$1 mode=$2
    shift 2
    {
        node_config "$node" "$mode"
        printf '\n[routes.kernel]\n'
        (($# == 0)) || printf '%s\n' "$@"
    } >"$(node_dir "$node")/vswitch.toml"
}

# soon COMMAND…: it succeeds within SOON_SECONDS.
soon() { until_deadline "$SOON_SECONDS" "$@"; }

# once_known NODE ADDRESS COMMAND…: it succeeds within SOON_SECONDS of the kernel's having a route to
# that address and the MAC of the next hop. Nobody but the vSwitch asks the kernel for that.
once_known() {
    until_deadline "$PATIENCE_SECONDS" kernel_knows "$1" "$2" || { echo "no $2" && return 1; }
    shift 2
    soon "$@"
}

# kernel_knows NODE ADDRESS
kernel_knows() {
    local via
    via=$(in_ip "$1" -json route get "$2" 2>/dev/null | jq -r '.[0] | .gateway // .dst') || return 1
    in_ip "$1" -json neigh show "$via" 2>/dev/null | jq -e 'any(.[]; .lladdr)' >/dev/null
}

# A try that begins in time counts, however long it takes on a loaded machine.
until_deadline() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < deadline)) || return 1
        sleep 0.02
    done
}

# reaches_once FROM TO [FAMILY]
reaches_once() { in_ns "$1" ping -q -n -c 1 -W 0.3 "$(address "$2" "${3:-4}")" >/dev/null; }

cannot_reach() { ! reaches_once "$@"; }

# goes NODE PREFIX WORDS: the route is the kernel's, and its target begins with these words.
goes() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" --arg words "$3" \
        'any(.[]; .prefix == $prefix and .source == "kernel" and (.target | startswith($words)))' >/dev/null
}

# goes_nowhere NODE PREFIX: the kernel's routes do not have it.
goes_nowhere() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" \
        'all(.[]; .prefix != $prefix or .source != "kernel")' >/dev/null
}

link_local() {
    in_ip "$1" -6 -json address show dev eth0 scope link | jq -r '[.[].addr_info[]?.local][0] // empty'
}

routes_on_the_link() {
    in_ip node-a route replace "${POD_PREFIX4[node-k]}" via "${HOST_ADDRESS[node-k]}"
    in_ip node-k route replace "${POD_PREFIX4[node-a]}" via "${HOST_ADDRESS[node-a]}"
}

routes_through_the_overlay() {
    in_ip node-a route replace "${POD_PREFIX4[node-b]}" via "${HOST_ADDRESS[node-b]}" dev vsw0 onlink
    in_ip node-b route replace "${POD_PREFIX4[node-a]}" via "${HOST_ADDRESS[node-a]}" dev vsw0 onlink
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

flushed() {
    in_ip node-a route flush root "$CLUSTER4" proto boot
    check "a flushed table is followed" soon goes_nowhere node-a "${POD_PREFIX4[node-b]}"
    routes_on_the_link
    routes_through_the_overlay
    check "and the routes that come back" soon reaches_once a1 k1
    check "through the overlay too" soon reaches_once a1 b1
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
        soon has_as_the_kernel node-a
    check "and not the one that went meanwhile" goes_nowhere node-a "${POD_PREFIX4[node-k]}"
    routes_on_the_link
    routes_through_the_overlay
    check "among so many a route is followed all the same" soon reaches_once a1 k1
    check "in the overlay too" soon reaches_once a1 b1
    many del | in_ip node-a -batch -
    check "all of them go again" soon has_as_the_kernel node-a
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

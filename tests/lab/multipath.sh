#!/bin/bash
# Several routers lead to node-b's pods, and the kernel of node-a knows them all. Flows are shared by
# weight, each keeps to one router; when a router dies its flows alone move, within a second of the
# kernel's noticing, and go back when it is back. Routes with several next hops and next-hop groups,
# IPv4 and IPv6.
#
#            lan-a               lan-b
#             │  ┌─── one ────┐    │
#   node-a ───┼──┼─── two ────┼────┼── node-b
#             │  └── three ───┘    │
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

declare -rA ROUTER_NUMBER=([one]=31 [two]=32 [three]=33)
# Source ports say which flow a packet is of.
readonly FLOWS=400 DATAGRAMS=3 FIRST_PORT=20000 PORT=7000
# What is followed, is within a second of the kernel's having it.
readonly SOON_SECONDS=1
# The kernel asks a router that does not answer three times, a second each, once it asks.
readonly PATIENCE_SECONDS=20

main() {
    local node router
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    for node in node-a node-b; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
        {
            node_config "$node" direct
            printf '\n[routes.kernel]\ncovering = false\n'
        } >"$(node_dir "$node")/vswitch.toml"
        node_start "$node"
    done
    for router in one two three; do router_up "$router"; done
    # The way back is one.
    in_ip node-b route add "${POD_PREFIX4[node-a]}" via "$(of_router one lan-b)"
    in_ip node-b -6 route add "${POD_PREFIX6[node-a]}" via "$(link_local one lan-b)" dev eth0
    pod_plug node-a a1
    pod_plug node-b b1
    by_weight 4 "$(of_router one lan-a)" "$(of_router two lan-a)"
    by_weight 6 "$(link_local one lan-a)" "$(link_local two lan-a)"
    a_router_dies
    next_hop_group
    report_end
}

# router_up NAME: a router of its own between the two subnets, which knows where the pods are.
router_up() {
    local name=$1 lan
    lab_add_ns "$name"
    in_ns "$name" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    for lan in lan-a lan-b; do
        in_ip router link add "$name-$lan" type veth peer name "$lan" netns "$(ns "$name")"
        in_ip router link set "$name-$lan" master "$lan" up
        in_ip "$name" address add "$(of_router "$name" "$lan")/25" dev "$lan"
        in_ip "$name" link set "$lan" up
    done
    in_ip "$name" route add "${POD_PREFIX4[node-a]}" via "${HOST_ADDRESS[node-a]}"
    in_ip "$name" route add "${POD_PREFIX4[node-b]}" via "${HOST_ADDRESS[node-b]}"
    in_ip "$name" -6 route add "${POD_PREFIX6[node-a]}" via "$(link_local node-a eth0)" dev lan-a
    in_ip "$name" -6 route add "${POD_PREFIX6[node-b]}" via "$(link_local node-b eth0)" dev lan-b
}

# of_router NAME LAN: its address there.
of_router() { printf '%s%s' "${LAN_GATEWAY[$2]%1}" "${ROUTER_NUMBER[$1]}"; }

link_local() {
    in_ip "$1" -6 -json address show dev "$2" scope link | jq -r '[.[].addr_info[]?.local][0] // empty'
}

# by_weight FAMILY ONE TWO: a route by router one with weight 1, and by two with weight 3.
by_weight() {
    local family=$1 prefix=${POD_PREFIX4[node-b]}
    [[ $family == 4 ]] || prefix=${POD_PREFIX6[node-b]}
    in_ip node-a "-$family" route replace "$prefix" \
        nexthop via "$2" dev eth0 weight 1 nexthop via "$3" dev eth0 weight 3
    check "IPv$family: the pod is reached by two routers" \
        until_deadline "$SOON_SECONDS" reaches_once "$family"
    flows "$family" before
    check "IPv$family: every flow keeps to one of them" keep_apart before
    check "IPv$family: shared by weight, 1 to 3" has_share before one 15 35
    flows "$family" again
    check "IPv$family: and each stays where it was" same_flows before again one
}

a_router_dies() {
    local two
    two=$(of_router two lan-a)
    flows 4 alive
    in_ip router link set two-lan-a down
    check "a router that dies is noticed by the kernel" until_deadline "$PATIENCE_SECONDS" \
        has_failed node-a "$two"
    check "and a second later all flows go by the other" flows_go_by one
    in_ip router link set two-lan-a up
    check "it comes back, and the kernel knows" until_deadline "$PATIENCE_SECONDS" knows node-a "$two"
    check "and its flows go by it again" flows_are_as alive
}

# Three routers in a group; one is taken out of it, dies, and comes back.
next_hop_group() {
    local router id=0 two
    two=$(of_router two lan-a)
    for router in one two three; do
        id=$((id + 1))
        in_ip node-a nexthop add id "$id" via "$(of_router "$router" lan-a)" dev eth0
    done
    in_ip node-a nexthop add id 10 group 1,1/2,2/3,1
    in_ip node-a route replace "${POD_PREFIX4[node-b]}" nhid 10
    check "a next-hop group of three is followed" until_deadline "$SOON_SECONDS" \
        goes node-a "${POD_PREFIX4[node-b]}" three
    check "and its third router is known" until_deadline "$PATIENCE_SECONDS" \
        knows node-a "$(of_router three lan-a)"
    check "and takes flows" takes_flows three group
    check "every flow keeps to one router" keep_apart group
    check "shared by weight: one" has_share group one 15 35
    check "shared by weight: two" has_share group two 38 62
    check "shared by weight: three" has_share group three 15 35

    in_ip node-a nexthop replace id 10 group 1,1/3,1
    check "a router that is taken out has no flows a second later" idle two without
    check "the first's did not move" has_all_of without group one
    check "nor the third's" has_all_of without group three

    in_ip node-a nexthop replace id 10 group 1,1/2,2/3,1
    check "it is put back, and has the same flows" flows_are_as group

    in_ip router link set two-lan-a down
    check "it dies, and the kernel knows" until_deadline "$PATIENCE_SECONDS" has_failed node-a "$two"
    check "a second later its flows have moved" idle two dead
    check "all of them arrive" arrived_all dead
    check "the first's did not move" has_all_of dead group one
    check "nor the third's" has_all_of dead group three
    in_ip router link set two-lan-a up
    check "it is back, and the kernel knows" until_deadline "$PATIENCE_SECONDS" knows node-a "$two"
    check "and has the same flows" flows_are_as group
}

reaches_once() { in_ns a1 ping -q -n -c 1 -W 0.3 "$(address b1 "$1")" >/dev/null; }

# goes NODE PREFIX ROUTER: the route leads by that router, among others.
goes() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" --arg via "$(of_router "$3" lan-a)" \
        'any(.[]; .prefix == $prefix and .source == "kernel" and (.target | contains($via)))' >/dev/null
}

has_failed() { neighbor_is "$1" "$2" '.state | index("FAILED")'; }

knows() { neighbor_is "$1" "$2" '.lladdr'; }

neighbor_is() { in_ip "$1" -json neigh show "$2" dev eth0 | jq -e "any(.[]; $3)" >/dev/null; }

# flows FAMILY NAME [SECONDS]: sends them all, and notes in NAME.ROUTER which came by each router once
# so many seconds are over.
flows() {
    local family=$1 name=$2 since router pids=() log
    since=$(awk -v now="$EPOCHREALTIME" -v more="${3:-0}" 'BEGIN { printf "%.6f", now + more }')
    for router in one two three; do
        log=$LAB_DIR/$name.$router.log
        in_ns "$router" tcpdump -nltt -B 4096 -i lan-a "udp and dst port $PORT" \
            >"$LAB_DIR/$name.$router.seen" 2>"$log" &
        pids+=("$!")
        disown "$!"
        wait_until 5 grep -q 'listening on' "$log" || { cat "$log" && return 1; }
    done
    in_ns a1 /usr/bin/python3 "$root/tests/lab/flow_burst.py" "$(address b1 "$family")" "$PORT" \
        "$FIRST_PORT" "$FLOWS" "$DATAGRAMS" "$since"
    # What is on its way arrives, unless it is lost.
    wait_until 1 have_seen "$name" "$since" || true
    kill "${pids[@]}" 2>/dev/null || true
    for router in one two three; do
        # `1795237149.781147 IP 198.18.1.2.20017 > …`: the source port is behind the last dot.
        seen_since "$since" "$LAB_DIR/$name.$router.seen" | sort -u >"$LAB_DIR/$name.$router"
    done
}

# seen_since TIME FILE…: source ports, one for each datagram.
seen_since() {
    local since=$1
    shift
    awk -v since="$since" '$1 >= since && NF > 3 { sub(/.*\./, "", $3); print $3 }' "$@"
}

have_seen() { (($(seen_since "$2" "$LAB_DIR/$1".*.seen | wc -l) >= FLOWS * DATAGRAMS)); }

count() { wc -l <"$LAB_DIR/$1.$2"; }

# keep_apart NAME: no flow came by two routers, and all came.
keep_apart() {
    local twice
    twice=$(cat "$LAB_DIR/$1".{one,two,three} | sort | uniq -d | wc -l)
    ((twice == 0)) || { echo "$twice flows came by several routers" && return 1; }
    arrived_all "$1"
}

arrived_all() {
    local all
    all=$(cat "$LAB_DIR/$1".{one,two,three} | sort -u | wc -l)
    ((all == FLOWS)) || { echo "$all of $FLOWS flows arrived" && return 1; }
}

# has_share NAME ROUTER FROM TO: percent of the flows.
has_share() {
    local share=$((100 * $(count "$1" "$2") / FLOWS))
    ((share >= $3 && share <= $4)) || { echo "router $2 has $share %" && return 1; }
}

same_flows() { cmp "$LAB_DIR/$1.$3" "$LAB_DIR/$2.$3"; }

# has_all_of NAME BEFORE ROUTER: what came by it before comes by it still.
has_all_of() {
    local moved
    moved=$(comm -13 "$LAB_DIR/$1.$3" "$LAB_DIR/$2.$3" | wc -l)
    ((moved == 0)) || { echo "$moved flows left router $3" && return 1; }
}

# Each of these sends flows, and looks at those of a second later.

# flows_go_by ROUTER: all of them.
flows_go_by() {
    flows 4 moved "$SOON_SECONDS"
    (($(count moved "$1") == FLOWS))
}

# flows_are_as NAME: each comes by the router by which it came then.
flows_are_as() {
    flows 4 now "$SOON_SECONDS"
    same_flows "$1" now one && same_flows "$1" now two && same_flows "$1" now three
}

# takes_flows ROUTER NAME
takes_flows() {
    flows 4 "$2" "$SOON_SECONDS"
    (($(count "$2" "$1") > 0))
}

# idle ROUTER NAME: none come by it.
idle() {
    flows 4 "$2" "$SOON_SECONDS"
    (($(count "$2" "$1") == 0))
}

main "$@"

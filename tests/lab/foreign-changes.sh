#!/bin/bash
# What another program takes from the node is put right within a second, counted, and named in `status`:
# the host port down, without addresses, routes, IPv6, or gone; the nftables table flushed. A pod and
# its node reach one another again each time. Another program that insists is left alone, and named.
# alone: it counts seconds, and what is put right too late fails
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# Within a second, of which nothing is left for the programs that look at it on a loaded machine.
readonly RIGHT_SECONDS=3
# Three repairs within ten seconds are a fight. A change may take two, and is none if nothing else was
# changed so recently: so nodes take turns.
readonly PEACE_MS=10000
readonly NODES=(node-a node-b node-d)
declare -rA NEXT=([node-a]=node-b [node-b]=node-d [node-d]=node-a)

# The node that is looked at, and when each was put right last, in milliseconds.
node=${NODES[0]}
declare -A put_right=([node-a]=0 [node-b]=0 [node-d]=0)

main() {
    setup_binaries
    lab_trap
    lab_create
    nodes_up
    host_port
    nftables
    forwarding
    node=${NODES[0]}
    xdp
    fight
    killed
    queues
    report_end
}

nodes_up() {
    local other others
    underlay_up
    for node in "${NODES[@]}"; do underlay_attach_node "$node"; done
    for node in "${NODES[@]}"; do
        others=()
        for other in "${NODES[@]}"; do [[ $other == "$node" ]] || others+=("$other"); done
        node_up "$node" vxlan "${others[@]}"
        pod_plug "$node" "$(pod_of "$node")"
    done
    for node in "${NODES[@]}"; do check "$node: a pod and its node reach one another" reach; done
}

pod_of() { printf '%s1' "${1#node-}"; }

# changed WHAT COMMAND…: another program does this to a node, and it is put right.
changed() {
    local what before
    next_node
    what="$node, $1"
    shift
    before=$(repairs)
    in_ns "$node" "$@"
    check "$what: put right" until_deadline "$RIGHT_SECONDS" is_right
    check "$what: a pod and its node reach one another" until_deadline "$RIGHT_SECONDS" reach
    check "$what: counted" more_repairs_than "$before"
    put_right[$node]=$(now)
}

# next_node: another one's turn, once it has been left in peace.
next_node() {
    node=${NEXT[$node]}
    in_peace
}

in_peace() {
    until (($(now) - put_right[$node] > PEACE_MS)); do sleep 0.1; done
}

host_port() {
    changed "vsw0 down" ip link set vsw0 down
    changed "vsw0 without IPv4 addresses" ip -4 address flush dev vsw0
    changed "vsw0 without addresses" ip address flush dev vsw0
    changed "one route deleted" ip route del 198.18.0.0/16 dev vsw0
    changed "one IPv6 route deleted" ip -6 route del fd00:18::/32 dev vsw0
    changed "an unreachable route deleted" ip route del unreachable 198.18.0.0/16
    changed "all of protocol 86 flushed" sh -c 'ip route flush proto 86; ip -6 route flush proto 86'
    changed "another MTU" ip link set vsw0 mtu 1300
    changed "the gateway's neighbour deleted" ip neigh del 169.254.118.1 dev vsw0
    changed "disable_ipv6 1" sysctl -qw net.ipv6.conf.vsw0.disable_ipv6=1
    changed "disable_ipv6 1 then 0" sh -c \
        'sysctl -qw net.ipv6.conf.vsw0.disable_ipv6=1; sysctl -qw net.ipv6.conf.vsw0.disable_ipv6=0'
    changed "vsw0 deleted" ip link del vsw0
    for node in "${NODES[@]}"; do
        check "$node: status names what was put right" repaired "the host port"
        check "$node: and nothing needs attention" no_attention "host port"
    done
}

nftables() {
    changed "the ruleset flushed" nft flush ruleset
    changed "a rule of ours flushed" nft flush chain inet vswitch postrouting
    check "status names the table, and nft" \
        status_has '.repairs[] | select(.part | contains("nftables")) | .by | contains("nft")'
}

# A program detached by the number of its link.
xdp() {
    local program link
    program=$(in_ip node-a -json -details link show dev eth0 | jq '.[0].xdp.prog.id')
    link=$(bpftool -j link | jq ".[] | select(.prog_id == $program) | .id")
    bpftool link detach id "$link"
    check "the XDP program detached: put right" until_deadline "$RIGHT_SECONDS" has_xdp
    check "and pods of two nodes reach one another" until_deadline "$RIGHT_SECONDS" pings a1 "$(address b1 4)"
    check "and it is counted" repaired "the XDP program on the NIC"
    peer_map
}

# A peer that is removed from the program's map is missed at the next comparison of all, as at a reload.
peer_map() {
    local map key
    # shellcheck disable=SC2206 # four bytes
    key=(${HOST_ADDRESS[node-b]//./ })
    for map in $(maps_of vswitchd-node-a); do
        if bpftool map lookup id "$map" key "${key[@]}" >/dev/null 2>&1; then break; fi
    done
    bpftool map delete id "$map" key "${key[@]}"
    kill -HUP "$(lab_pid vswitchd-node-a)"
    check "a peer removed from the program's map: put right" \
        until_deadline "$RIGHT_SECONDS" bpftool map lookup id "$map" key "${key[@]}"
}

# maps_of PROCESS: the numbers of its maps. Other labs on the machine have such maps, too.
maps_of() { sed -n 's/^map_id:[[:space:]]*//p' "/proc/$(lab_pid "$1")/fdinfo/"* | sort -u; }

forwarding() {
    changed "ip_forward 0" sysctl -qw net.ipv4.ip_forward=0
    check "and the kernel forwards" test "$(in_ns "$node" sysctl -n net.ipv4.ip_forward)" = 1
}

has_xdp() { in_ip node-a link show dev eth0 | finds prog/xdp; }

# Another program has the host port down again and again: after three times it is left alone.
fight() {
    local round
    in_peace
    for round in 1 2 3; do
        in_ip node-a link set vsw0 down
        check "time $round: put right" until_deadline "$RIGHT_SECONDS" is_right
    done
    in_ip node-a link set vsw0 down
    check "then the daemon backs off and says so" until_deadline "$RIGHT_SECONDS" attention "again and again"
    sleep 2
    check "and leaves it as it is" is_down
    in_ip node-a link set vsw0 up
}

# A queue that appears at run time has no socket.
queues() {
    lab_signal vswitchd-node-a TERM
    in_ns node-a ethtool -L eth0 rx 1
    check "the daemon starts on a NIC with one queue" node_start node-a
    check "no queue is without a socket" no_attention "queues now"
    in_ns node-a ethtool -L eth0 rx 2
    check "a queue that appears is named" until_deadline "$RIGHT_SECONDS" attention "receives on 2 queues now"
    in_ns node-a ethtool -L eth0 rx 1
    check "and no more when it is gone" until_deadline "$RIGHT_SECONDS" no_attention "queues now"
}

# Without a daemon pods' addresses lead nowhere, and not out by the default route.
killed() {
    # The one that runs still backs off.
    lab_signal vswitchd-node-a KILL
    node_start node-a
    lab_signal vswitchd-node-a KILL
    check "a killed daemon's pods are where they were" leads_by_port
    in_ip node-a link delete vsw0
    check "without its port they are unreachable, not elsewhere" leads_nowhere 198.18.2.9
    check "IPv6 too" leads_nowhere fd00:18:2::9
    check "the next daemon starts" node_start node-a
    check "and routes them again" leads_by_port
}

reach() {
    local pod other
    pod=$(pod_of "$node")
    other=$(pod_of "${NEXT[$node]}")
    pings "$pod" "$(address "$node" 4)" && pings "$pod" "$(address "$node" 6)" &&
        pings "$node" "$(address "$pod" 4)" && pings "$node" "$(address "$other" 4)" &&
        pings "$node" "$(address "$pod" 6)"
}

# The host port has all that a pod prefix of each family brings.
is_right() {
    local link
    link=$(in_ip "$node" -json link show dev vsw0) || return 1
    jq -e '.[0] | .mtu == 1450 and (.flags | index("UP"))' <<<"$link" || return 1
    in_ip "$node" -4 address show dev vsw0 | finds "$(address "$node" 4)/32" || return 1
    in_ip "$node" -6 address show dev vsw0 | finds "$(address "$node" 6)/128" || return 1
    in_ip "$node" route show 198.18.0.0/16 | finds 'dev vsw0' || return 1
    in_ip "$node" route show type unreachable 198.18.0.0/16 | finds 4000000000 || return 1
    in_ip "$node" -6 route show fd00:18::/32 | finds 'dev vsw0' || return 1
    in_ip "$node" neigh show dev vsw0 | finds '169.254.118.1 .*PERMANENT' || return 1
    in_ns "$node" nft list table inet vswitch | finds 'masquerade'
}

is_down() { ! in_ip "$node" -json link show dev vsw0 | jq -e '.[0].flags | index("UP")'; }

leads_nowhere() { ! in_ip node-a route get "$1"; }

leads_by_port() { in_ip node-a route get 198.18.2.9 | finds 'dev vsw0'; }

status_has() { ctl "$node" status --json | jq -e "$1"; }

repairs() { ctl "$node" status --json | jq '[.repairs[]?.count] | add // 0'; }

more_repairs_than() { (($(repairs) > $1)); }

repaired() { status_has "any(.repairs[]; .part == \"$1\" and .count > 0)"; }

attention() { status_has "any(.warnings[]; contains(\"$1\"))"; }

no_attention() { ! attention "$1"; }

main "$@"

#!/bin/bash
# A link on the way to the other node that takes less than the NIC: its router says so, the tunnel's
# MTU follows, pods are told, and what may be cut arrives in fragments. Nothing vanishes but the one
# packet that found out. And somebody else says so, of whom nobody is to believe much.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly NARROW=1400 HEARD=1390 ROUTED=1380
# RFC 8200 section 5: what is left to pods that have IPv6, whatever is said.
readonly FLOOR=1280

main() {
    local mode
    setup_binaries
    lab_trap
    for mode in vxlan:50 ipip:20 vxlan6:70; do
        lab_create
        "nodes_by_${mode%:*}"
        pod_plug node-a a1
        pod_plug node-b b1
        narrowed "${mode%:*}" $((1500 - ${mode#*:})) $((NARROW - ${mode#*:}))
        [[ $mode == vxlan6* ]] || kernel_knows "${mode%:*}" $((NARROW - ${mode#*:}))
        [[ $mode == ipip* ]] || forged "${mode%:*}" $((NARROW - ${mode#*:}))
        lab_down
    done
    report_end
}

nodes_by_vxlan() { two_nodes_up vxlan; }

nodes_by_ipip() { two_nodes_up ipip; }

nodes_by_vxlan6() {
    underlay6_up node-a node-b outside
    node6_up node-a vxlan node-b
    node6_up node-b vxlan node-a
}

# underlay_address MODE HOST
underlay_address() {
    if [[ $1 == *6 ]]; then printf '%s' "${HOST6[$2]}"; else printf '%s' "${HOST_ADDRESS[$2]}"; fi
}

# narrow MODE: one way only: a device of that MTU would drop what comes the other way unheard.
narrow() {
    local length=32
    [[ $1 != *6 ]] || length=128
    in_ip router route add "$(underlay_address "$1" node-b)/$length" dev lan-b mtu lock "$NARROW"
}

# narrowed MODE MTU NARROWED
narrowed() {
    local mode=$1 before=$2 after=$3
    check "$mode: IPv4 of $before bytes passes" pings_sized a1 b1 4 $((before - 28))
    narrow "$mode"
    # Lost on the way, and told to the node that sent the tunnel packet.
    in_ns a1 ping -q -n -M "do" -c 1 -w 1 -s $((before - 28)) "$(address b1 4)" >/dev/null || true
    check "$mode: node-a knows that $after bytes pass to node-b" wait_until 10 peer_takes node-a "$after"
    check "$mode: what the router said is counted" [ "$(told_of node-a noted)" -gt 0 ]
    check "$mode: IPv4 of one byte more is answered with the MTU" \
        is_told "mtu ?= ?$after" -M "do" -s $((after - 27)) "$(address b1 4)"
    check "$mode: IPv6 of one byte more is answered with the MTU" \
        is_told "mtu ?= ?$after" -M "do" -s $((after - 47)) "$(address b1 6)"
    check "$mode: IPv4 of $after bytes passes" pings_sized a1 b1 4 $((after - 28))
    check "$mode: IPv6 of $after bytes passes" pings_sized a1 b1 6 $((after - 48))
    check "$mode: what may be cut passes" in_ns a1 ping -q -n -M dont -s $((before - 28)) -c 2 -i 0.2 -w 2 \
        "$(address b1 4)"
    check "$mode: node-b is not concerned" peer_takes node-b "$before"
    check "$mode: node-a accounts for every packet" accounts node-a
    check "$mode: node-b accounts for every packet" accounts node-b
    lab_signal vswitchd-node-a KILL
    check "$mode: node-a starts again" node_start node-a
    node_adjust node-a
    check "$mode: and knows what passes, though no router said it anew" peer_takes node-a "$after"
    check "$mode: the pod is told at once" \
        is_told "mtu ?= ?$after" -M "do" -s $((after - 27)) "$(address b1 4)"
}

# kernel_knows MODE MTU: node-b's kernel is told of its own packets, by the same router; and its routes
# may say it.
kernel_knows() {
    local mode=$1 mtu=$2
    in_ip router route add "${HOST_ADDRESS[node-a]}/32" dev lan-a mtu lock "$HEARD"
    in_ns node-b ping -q -n -M "do" -c 1 -w 1 -s 1472 "${HOST_ADDRESS[node-a]}" >/dev/null || true
    check "$mode: what node-b's kernel has heard counts" \
        wait_until 10 peer_takes node-b $((HEARD - NARROW + mtu))
    in_ip node-b route add "${HOST_ADDRESS[node-a]}/32" via "${LAN_GATEWAY[lan-b]}" mtu "$ROUTED"
    check "$mode: what node-b's route says counts" \
        wait_until 10 peer_takes node-b $((ROUTED - NARROW + mtu))
    check "$mode: IPv4 of that size passes" pings_sized b1 a1 4 $((ROUTED - NARROW + mtu - 28))
}

# forged MODE MTU: anybody can say that a packet was too big. It has to be one that is sent, and no more
# comes of it than the smallest MTU that pods can do with.
forged() {
    local mode=$1 mtu=$2 noted refused
    noted=$(told_of node-a noted)
    refused=$(told_of node-a refused)
    check "$mode: outside says it of a tunnel to nobody, which is Linux's to hear" \
        forge "$mode" outside 4789
    check "$mode: of the tunnel, that it takes what was sent" forge "$mode" node-b 4789 9000
    check "$mode: the latter alone is refused and counted" wait_until 5 exactly node-a refused $((refused + 1))
    check "$mode: of another port, which is Linux's to hear" forge "$mode" node-b 4790
    check "$mode: none changes anything" peer_takes node-a "$mtu"
    check "$mode: of the tunnel" forge "$mode" node-b 4789
    check "$mode: is counted, the one of another port is not" wait_until 5 exactly node-a noted $((noted + 1))
    check "$mode: and lowers its MTU to $FLOOR, not to 68" wait_until 5 peer_takes node-a "$FLOOR"
    check "$mode: with which IPv6 passes" pings_sized a1 b1 6 $((FLOOR - 48))
    check "$mode: node-a accounts for every packet" accounts node-a
}

# forge MODE PEER PORT [MTU]: outside says that node-a's packet to that was longer than 68 bytes.
forge() {
    in_ns outside /usr/bin/python3 "$root/tests/lab/forge_too_big.py" \
        "$(underlay_address "$1" node-a)" "$(underlay_address "$1" "$2")" "$3" "${4:-68}"
}

exactly() { [[ $(told_of "$1" "$2") == "$3" ]]; }

peer_takes() { [[ $(ctl "$1" --json show peers | jq '.[0].mtu') == "$2" ]]; }

# told_of NODE WHAT: how often something was said that was noted, or refused.
told_of() {
    ctl "$1" --json show drops |
        jq --arg reason "path-mtu-$2" '[.reasons[] | select(.reason == $reason) | .packets] | add // 0'
}

# pings_sized FROM TO FAMILY BYTES
pings_sized() {
    in_ns "$1" ping -q -n -M "do" -s "$4" -c 2 -i 0.2 -w 2 "$(address "$2" "$3")"
}

# is_told PATTERN PING…: what ping in a1 says matches.
is_told() {
    local pattern=$1 said
    shift
    said=$(in_ns a1 ping -n -c 2 -i 0.3 -w 2 "$@" 2>&1) || true
    grep -Eq "$pattern" <<<"$said" || { echo "$said" && return 1; }
}

main "$@"

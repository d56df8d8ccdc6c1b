#!/bin/bash
# The uplink of kind `auto` when the kind that was chosen stops working: another program takes the TAP away again
# and again, then the NIC's XDP hook; the next kind takes over each time, without a restart, is told, and a TCP
# connection of a pod goes on. A NIC that is deleted and made anew is opened again. Where neither XDP nor tc takes a
# program there are packet sockets at the start.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PORT=7300
# A repair is done within a second or so, and three of them are a fight.
readonly SOON=10

main() {
    local lacks
    lacks=$(uplink_lacks offload)
    if [[ -n $lacks ]]; then
        skip "an uplink that falls back" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    VSWITCH_UPLINK=auto two_nodes
    check "on a veth it is offload at first" is_kind offload
    connection_begins
    tap_taken_away
    hook_taken
    check "the connection was held all the time" connection_ends
    nic_made_anew
    nothing_else
    more_queues
    report_end
}

two_nodes() {
    local node
    underlay_up
    for node in node-a node-b; do underlay_attach_node "$node"; done
    node_up node-a vxlan node-b
    node_up node-b vxlan node-a
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1
}

is_kind() { ctl node-a status --json | jq -e --arg kind "$1" '.uplink.kind == $kind'; }

connection_begins() {
    lab_spawn held-server b1 /usr/bin/python3 "$root/tests/lab/held_connection.py" serve "$PORT"
    wait_until 5 listens b1 "$PORT"
    lab_spawn held-client a1 /usr/bin/python3 "$root/tests/lab/held_connection.py" \
        hold "$(address b1 4)" "$PORT" "$SOON"
}

connection_ends() {
    lab_signal held-client INT
    wait_until 5 lab_gone held-client
    finds '^held for' "$LAB_DIR/logs/held-client.log" || { cat "$LAB_DIR/logs/held-client.log" && return 1; }
}

tap_taken_away() {
    take_tap
    check "the TAP deleted again and again: AF_XDP takes over" until_deadline "$SOON" is_kind af_xdp
    check "the TAP is gone" wait_until 3 has_no_tap
    told 'af_xdp, as offload stopped working: another program changes' 'sends by packet sockets, as AF_XDP would copy'
    works
}

take_tap() {
    local try
    for try in 1 2 3; do
        wait_until 5 has_tap || return 1
        say "the TAP is deleted, $try of 3"
        in_ip node-a link delete vswup0 2>/dev/null || true
    done
}

has_tap() { in_ip node-a link show dev vswup0; }

has_no_tap() { ! in_ip node-a link show | finds vswup; }

hook_taken() {
    foreign xdp
    check "another program has the XDP hook: packet sockets take over" until_deadline "$SOON" is_kind af_packet
    told 'af_packet, as af_xdp stopped working' 'sends by af_packet' 'drops what they take'
    works
    no_foreign xdp
    works
}

# foreign HOOK: another program has it.
foreign() {
    lab_spawn "foreign-$1" node-a /usr/bin/python3 "$root/tests/lab/foreign_programs.py" eth0 "$1"
    wait_until 10 finds 'has it' "$LAB_DIR/logs/foreign-$1.log"
}

no_foreign() {
    lab_signal "foreign-$1" KILL
    wait_until 5 lab_gone "foreign-$1"
}

# told WORD…: in the log and in the status, and nothing needs attention any more.
told() {
    local word
    for word in "$@"; do check "status says: $word" finds -F "$word" <<<"$(ctl node-a status)"; done
    check "so does the log" finds -F "$1" "$LAB_DIR/logs/vswitchd-node-a.log"
    check "and no problem is left" no_problem
    check "as a field, too" reason_has "$1"
}

reason_has() { ctl node-a status --json | jq -e --arg why "${1#*, as }" '.uplink.kind_reason | startswith($why)'; }

no_problem() { ctl node-a status --json | jq -e '.problems // [] == []'; }

works() {
    check "pods reach one another" until_deadline "$SOON" talks a1 b1 4
    check "both ways" talks b1 a1 6
    check "a whole file" transfers a1 "$(address b1 4)"
    check "the node keeps its NIC" pings outside "${HOST_ADDRESS[node-a]}"
}

nic_made_anew() {
    in_ip node-a link delete eth0
    check "the NIC deleted: it is a problem" wait_until 5 has_problem
    in_ip router link add to-node-a numrxqueues 2 numtxqueues 2 type veth \
        peer name eth0 numrxqueues 2 numtxqueues 2 netns "$(ns node-a)"
    in_ns router ethtool -K to-node-a tx off tso off tx-udp_tnl-segmentation off >/dev/null
    in_ip router link set to-node-a master "${HOST_LAN[node-a]}" up
    in_ip node-a address add "${HOST_ADDRESS[node-a]}/25" dev eth0
    in_ip node-a link set eth0 up
    in_ip node-a route add default via "${LAN_GATEWAY[${HOST_LAN[node-a]}]}"
    check "made anew: opened again, by the best kind" until_deadline "$SOON" is_kind offload
    check "and no problem is left" wait_until "$SOON" no_problem
    works
}

has_problem() { ctl node-a status --json | jq -e 'any(.problems[].reason; contains("opened again when it is back"))'; }

# With each hook taken there are packet sockets, and a classifier. The kernel keeps that when the daemon is killed.
nothing_else() {
    lab_signal vswitchd-node-a TERM
    wait_until 5 lab_gone vswitchd-node-a
    foreign xdp
    foreign tc
    check "with each hook taken it starts" started
    check "by packet sockets" is_kind af_packet
    told 'af_packet, as AF_XDP is not to be had' 'by a classifier' 'sends by af_packet'
    works
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    check "killed: the classifier stays" has_classifier
    no_foreign xdp
    no_foreign tc
    check "the next daemon has its choice again" started
    check "and takes the best" is_kind offload
    check_not "and the classifier is gone" has_classifier
    works
}

# A queue of the NIC that came at run time has no AF_XDP socket.
more_queues() {
    in_ns node-a ethtool -L eth0 rx 1 tx 1
    take_tap
    check "with one queue: AF_XDP takes over" until_deadline "$SOON" is_kind af_xdp
    in_ns node-a ethtool -L eth0 rx 2 tx 2
    check "with two: packet sockets take over" until_deadline "$SOON" is_kind af_packet
    told 'af_packet, as af_xdp stopped working: eth0 receives on 2 queues, of which 1 had a socket'
    works
}

# No service manager keeps the pods' descriptors here.
started() { node_start node-a && node_adjust node-a; }

has_classifier() { in_ns node-a tc filter show dev eth0 ingress | finds vswitch_pinhole; }

main "$@"

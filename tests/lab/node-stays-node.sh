#!/bin/bash
# The node is never broken: a TCP connection to its NIC's address and ICMP to it go on while
# vswitchd starts, runs, is killed and starts again; and its pods are there again afterwards. So are
# tunnel packets from hosts that are no peers the node's.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local node=${HOST_ADDRESS[node-a]}
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    servers_up node-a outside
    held_up "$node"

    node_up node-a vxlan node-b
    node_answers "with vswitchd running"
    pod_plug node-a a1
    servers_up a1
    check "the node reaches its pod" talks node-a a1 4
    foreign_tunnels

    lab_signal vswitchd-node-a KILL
    check "vswitchd is killed" lab_gone vswitchd-node-a
    node_answers "with vswitchd killed"

    check "vswitchd starts again on what the killed one left" node_start node-a
    node_answers "with vswitchd started again"

    lab_stop vswitchd-node-a
    node_answers "with vswitchd stopped"
    held_judged
    report_end
}

# held_up ADDRESS: one TCP connection and one ping from outside, for the whole of the test.
held_up() {
    lab_spawn echo-server node-a /usr/bin/python3 "$root/tests/lab/held_connection.py" serve 2222
    wait_until 5 listens node-a 2222
    lab_spawn held outside /usr/bin/python3 "$root/tests/lab/held_connection.py" hold "$1" 2222
    lab_spawn ping outside ping -n -i 0.1 "$1"
}

# node_answers WHEN
node_answers() {
    local node=${HOST_ADDRESS[node-a]} outside=${HOST_ADDRESS[outside]}
    check "ICMP to the NIC $1" pings outside "$node"
    check "TCP to the NIC $1" sees outside "$node" "$outside $node"
    check "the held connection lives $1" lab_pid held
}

# A tunnel of the kernel's own is with a host that is no peer: its packets stay the kernel's.
foreign_tunnels() {
    check "IPIP from a host that is no peer reaches the kernel" kernel_has outside 4
    check "likewise IPv6 in IPv4" kernel_has outside 41
    check_not "IPIP from a peer does not" kernel_has node-b 4
    check "but is ours, and judged" has_drop node-a inner-source-foreign
    check "the host becomes a peer" \
        ctl node-a peer add outside "${HOST_ADDRESS[outside]}" --prefix 198.18.77.0/24
    check_not "and its IPIP ours" kernel_has outside 4
    check "it is a peer no longer" ctl node-a peer del outside
    check "and its IPIP the kernel's" kernel_has outside 4
}

# kernel_has HOST PROTOCOL: the kernel of node-a answers the host's packets of this IP protocol.
kernel_has() {
    in_ns "$1" /usr/bin/python3 "$root/tests/lab/foreign_tunnel.py" "${HOST_ADDRESS[node-a]}" "$2"
}

# has_drop NODE REASON: the node counts such packets.
has_drop() {
    ctl "$1" show drops --json | jq -e --arg reason "$2" 'any(.reasons[]; .reason == $reason)'
}

held_judged() {
    lab_signal held INT || true
    lab_signal ping INT || true
    check "the held connection never stood still for a second" grep -q '^held ' "$LAB_DIR/logs/held.log"
    check "no ping of the whole test was lost" grep -q ' 0% packet loss' "$LAB_DIR/logs/ping.log"
}

main "$@"

#!/bin/bash
# The underlay has jumbo frames, and AF_XDP receives no frame beyond 3,840 bytes: what a peer sends that is longer is
# lost, and `show drops`, status and metrics name it apart from what is lost for want of memory.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly JUMBO=9000 PACKETS=7

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-d
    in_ip router link set lan-a mtu "$JUMBO"
    local node
    for node in node-a node-d; do
        in_ip router link set "to-$node" mtu "$JUMBO"
        in_ip "$node" link set eth0 mtu "$JUMBO"
    done
    node_up node-a vxlan node-d
    check "the start says what AF_XDP takes" said "AF_XDP takes frames of at most 3840 bytes"
    check "nothing is lost yet" lost 0
    check "nor named as lost" not_said "packet(s) from the underlay were lost"
    in_ns node-d /usr/bin/python3 -c '
import socket, sys
socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    socket_.sendto(bytes(5000), (sys.argv[1], 4789))' "${HOST_ADDRESS[node-a]}" "$PACKETS"
    check "what is too long is counted" wait_until 5 lost "$PACKETS"
    check "and nothing else" no_memory_was_there
    check "status says how many" said "$PACKETS packet(s) from the underlay were lost at eth0"
    check "and what to do" said "an MTU of 3826 at most"
    check "what is not too long is taken" taken
    report_end
}

# lost NUMBER: by the queues of the NIC together.
lost() { (($(kernel_drops frame-too-long) == $1)); }

no_memory_was_there() { (($(kernel_drops no-receive-memory) == 0)); }

kernel_drops() {
    ctl node-a show drops --json |
        jq --arg reason "$1" '[.kernel[] | select(.reason == $reason) | .packets] | add // 0'
}

said() { ctl node-a status --json | jq -r '.warnings[]' | grep -F "$1"; }

not_said() { ! said "$1"; }

# The longest one, of 3,826 bytes of IP.
taken() {
    local before
    before=$(received)
    in_ns node-d /usr/bin/python3 -c '
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(3798), (sys.argv[1], 4789))' "${HOST_ADDRESS[node-a]}"
    wait_until 5 received_more_than "$before" && lost "$PACKETS"
}

received() { ctl node-a show ports --json | jq '.[] | select(.kind == "uplink") | .counters.rx_packets'; }

received_more_than() { (($(received) > $1)); }

main "$@"

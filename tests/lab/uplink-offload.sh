#!/bin/bash
# The uplink of kind `offload`: superframes leave a node whole and arrive whole, or cut by a wire; what
# nobody of the cluster sent is dropped by its reason; the NIC stays the node's. The TAP beside it is put
# right when another program takes it down or away, ends with a daemon that is killed, and leaves nothing
# behind. Pods of all kinds of peers over this uplink: offload-*.sh beside this file.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/uplink_checks.sh
. "$root/scripts/lib/uplink_checks.sh"

main() {
    local lacks
    lacks=$(uplink_lacks offload)
    if [[ -n $lacks ]]; then
        skip "the uplink of kind offload" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    export VSWITCH_UPLINK=offload
    uplink_nodes_up
    servers_up a1 b1 d1 node-a outside
    check "status names the kind and its TAP" says node-a 'offload on 1 queue' 'by the TAP vswup0 with 1 queue'
    check "the NIC has no XDP program" has_no_xdp node-a
    matrix a1 b1 node-a
    superframes
    forged
    check "what finds the TAP's queue full is counted" overflows interface-queue-full
    node_keeps_its_nic
    other_encapsulations
    put_right
    killed
    two_workers offload
    chosen
    left_nothing
    report_end
}

superframes() {
    check "a transfer leaves b1's node whole and arrives as a wire cuts it" \
        frames node-b tx "$WHOLE" node-a rx "$FULL" talks a1 b1 4
    in_ns router ethtool -K to-node-a tx on tso on tx-udp_tnl-segmentation on >/dev/null
    check "and whole where nothing cuts it" frames node-d tx "$WHOLE" node-a rx "$WHOLE" talks a1 d1 4
    check "IPv6 of the pods likewise" frames node-d tx "$WHOLE" node-a rx "$WHOLE" talks a1 d1 6
    in_ns router ethtool -K to-node-a tx off tso off tx-udp_tnl-segmentation off >/dev/null
}

put_right() {
    in_ip node-a link delete vswup0
    check "the TAP deleted: put right" until_deadline "$RIGHT_SECONDS" pings a1 "$(address b1 4)"
    check "and TCP passes both ways" talks b1 a1 4
    check "and it is counted" repaired
    in_ip node-a link set vswup0 down
    check "the TAP down: put right" until_deadline "$RIGHT_SECONDS" pings b1 "$(address a1 4)"
    check "and TCP passes both ways" talks a1 b1 4
    check "nothing needs attention" no_attention
}

repaired() {
    ctl node-a status --json |
        jq -e 'any(.repairs[]; .part == "the uplink'\''s TAP with its programs of tc" and .count > 0)'
}

killed() {
    lab_signal vswitchd-node-a KILL
    check "killed: its TAP ends with it" wait_until 3 has_no_tap node-a
    check "and the node keeps its NIC" pings outside "${HOST_ADDRESS[node-a]}"
    check "the next daemon starts" started
    check "and pods reach one another" until_deadline "$RIGHT_SECONDS" talks a1 b1 4
    check "both ways" talks b1 a1 6
}

# A veth has no zero-copy.
chosen() {
    lab_signal vswitchd-node-a TERM
    sed -i 's|^kind = .*|kind = "auto"|' "$(node_dir node-a)/vswitch.toml"
    check "auto starts" started
    check "it chose offload, and says why" says node-a 'offload on 2 queue' 'offload, as AF_XDP would copy each frame'
    check "and left no XDP program" has_no_xdp node-a
    check "pods reach one another" talks a1 b1 4
}

left_nothing() {
    node_drain node-a
    check "drained, no TAP is left" has_no_tap node-a
    port_is_the_kernels
}

has_no_tap() { ! in_ip "$1" link show | finds vswup; }

main "$@"

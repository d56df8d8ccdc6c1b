#!/bin/bash
# The uplink of kind `af_packet`: superframes without a tunnel leave a node whole and arrive whole, those in a
# tunnel are cut by the worker; what nobody of the cluster sent is dropped by its reason; the kernel answers
# nothing of what is ours, and the NIC stays the node's. The program that drops the originals is put right when
# another program detaches it, ends with a daemon that is killed, and leaves nothing behind. Pods of all kinds of
# peers over this uplink: packet-*.sh beside this file.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/uplink_checks.sh
. "$root/scripts/lib/uplink_checks.sh"

# Of the program that is looked for.
link=

main() {
    setup_binaries
    lab_trap
    lab_create
    export VSWITCH_UPLINK=af_packet
    uplink_nodes_up
    servers_up a1 b1 d1 node-a outside
    check "status names the kind" says node-a 'af_packet on 1 queue' '1 packet socket(s), and a program of tc'
    check "the NIC has no XDP program" has_no_xdp node-a
    matrix a1 b1 node-a
    check "in a tunnel a transfer leaves and arrives cut" is_cut talks a1 b1 4
    forged
    check "the kernel answered none of it" test "$(answers)" = 0
    check "what finds a socket's buffer full is counted" overflows receive-ring-full
    node_keeps_its_nic
    other_encapsulations
    put_right
    killed
    two_workers af_packet
    link=$(program_link)
    node_drain node-a
    check "drained, no program of tc is left" has_no_link
    port_is_the_kernels
    report_end
}

# is_cut COMMAND…: frames that the worker sends by the NIC have the wire's size.
is_cut() {
    local before
    before=$(counted node-b tx)
    "$@" || return 1
    ! at_least $((FULL + 1)) "$before" "$(counted node-b tx)"
}

# ICMP errors that node-a's kernel has sent.
answers() { in_ns node-a nstat -asz IcmpOutDestUnreachs | awk '/IcmpOutDestUnreachs/ { print $2 }'; }

put_right() {
    link=$(program_link)
    bpftool link detach id "$link"
    check "its program of tc detached: put right" until_deadline "$RIGHT_SECONDS" has_another_link
    check "and it is counted" repaired
    check "and TCP passes both ways" talks b1 a1 4
    check "nothing needs attention" no_attention
    link=$(program_link)
}

# The number of the link by which the daemon's program hangs on tc.
program_link() {
    awk '/^link_type:/ { is_tcx = $2 == "tcx" } /^link_id:/ && is_tcx { print $2 }' \
        "/proc/$(lab_pid vswitchd-node-a)/fdinfo/"* | grep .
}

has_another_link() { (($(program_link) != link)); }

has_no_link() { ! bpftool link show id "$link" >/dev/null 2>&1; }

repaired() {
    ctl node-a status --json |
        jq -e 'any(.repairs[]; .part == "the program of tc beside the uplink'\''s packet sockets" and .count > 0)'
}

killed() {
    lab_signal vswitchd-node-a KILL
    check "killed: its program ends with it" wait_until 3 has_no_link
    check "and the node keeps its NIC" pings outside "${HOST_ADDRESS[node-a]}"
    check "the next daemon starts" started
    check "and pods reach one another" until_deadline "$RIGHT_SECONDS" talks a1 b1 4
    check "both ways" talks b1 a1 6
}

main "$@"

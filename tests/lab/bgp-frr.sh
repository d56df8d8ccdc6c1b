#!/bin/bash
# Routes by BGP, from FRR on each node and on the router between them, which reflects the nodes'
# pod prefixes and routes to them itself: nothing is encapsulated. vswitchd has no peers configured
# and follows the kernel, in which FRR uses next-hop objects.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/bgp.sh
. "$root/scripts/lib/bgp.sh"

main() {
    local node
    setup_packages bgp
    setup_binaries
    lab_trap
    lab_create
    bgp_underlay_up
    frr_router_up
    for node in node-a node-b node-d; do
        bgp_node "$node"
        pod_plug "$node" "${node#node-}1"
        frr_up "$node"
    done
    servers_up a1 b1 d1
    heading "Three nodes, announced by FRR"
    everyone_learns node-a node-b node-d
    for node in b d; do check "a1 reaches ${node}1" follows a1 "${node}1"; done
    everyone_talks a1 b1 d1
    check "node-b is reached by the router, unencapsulated" shows_route node-a node-b direct
    dies
    comes_back
    report_end
}

dies() {
    heading "FRR dies on node-b"
    kill -KILL "$(lab_pid bgpd-node-b)" "$(lab_pid zebra-node-b)"
    check "node-a's kernel loses its route" \
        wait_until "$PROTOCOL_SECONDS" kernel_lacks node-a node-b
    check "a1 is told so within a second" wait_until "$FOLLOWS_SECONDS" is_told_unreachable a1 b1
    check "a1 reaches d1 all the same" follows a1 d1
}

comes_back() {
    heading "and is started again"
    rm -f "$LAB_DIR"/frr-node-b/*.vty "$LAB_DIR"/frr-node-b/zserv.api
    frr_up node-b
    check "node-a hears of it" \
        wait_until "$PROTOCOL_SECONDS" kernel_has node-a node-b
    wait_until "$PROTOCOL_SECONDS" kernel_has node-b node-a || true
    check "a1 reaches b1" follows a1 b1
}

main "$@"

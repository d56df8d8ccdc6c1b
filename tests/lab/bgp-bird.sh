#!/bin/bash
# Routes by BGP, from BIRD on each node: vswitchd has no peers configured and follows what BIRD
# writes into the kernel. Three nodes in two subnets, as a full mesh and with a route reflector; a
# node joins, moves to another subnet and dies. Traffic follows within a second of the kernel.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/bgp.sh
. "$root/scripts/lib/bgp.sh"

main() {
    setup_packages bgp
    setup_binaries
    lab_trap
    lab_create
    bgp_underlay_up
    mesh_of_two
    joins
    moves
    reflector
    dies
    report_end
}

mesh_of_two() {
    heading "Two nodes in two subnets"
    bgp_node node-a
    bgp_node node-b
    bird_up node-a node-b
    bird_up node-b node-a
    pod_plug node-a a1
    pod_plug node-b b1
    everyone_learns node-a node-b
    check "a1 reaches b1" follows a1 b1
    check "by VXLAN, as node-b is in another subnet" shows_route node-a node-b vxlan
}

# With its pod; the mesh is told of it.
node_d_comes() {
    bgp_node node-d
    pod_plug node-d d1
    bird_up node-d node-a node-b
    bird_neighbors_are node-a node-b node-d
    bird_neighbors_are node-b node-a node-d
    everyone_learns node-a node-b node-d
}

joins() {
    heading "node-d joins, in node-a's subnet"
    node_d_comes
    check "a1 reaches d1" follows a1 d1
    check "unencapsulated, on the same link" shows_route node-a node-d direct
    check "d1 reaches b1" follows d1 b1
    check "by VXLAN" shows_route node-b node-d vxlan
    servers_up a1 b1 d1
    everyone_talks a1 b1 d1
}

moves() {
    heading "node-d moves to node-b's subnet"
    lab_stop bird-node-d
    lab_stop vswitchd-node-d
    check "node-a forgets it" wait_until "$PROTOCOL_SECONDS" kernel_lacks node-a node-d
    HOST_LAN[node-d]="lan-b"
    HOST_ADDRESS[node-d]=203.0.113.16
    lab_delete_ns d1
    rm -rf "$(node_dir node-d)"
    # A namespace takes its interfaces with it in its own time; the NIC is wanted again at once.
    in_ip router link del to-node-d
    lab_delete_ns node-d
    node_d_comes
    check "a1 reaches d1" follows a1 d1
    check "by VXLAN now" shows_route node-a node-d vxlan
    check "b1 reaches d1" follows b1 d1
    check "unencapsulated" shows_route node-b node-d direct
    servers_up d1
    everyone_talks a1 b1 d1
}

reflector() {
    local node
    heading "A route reflector instead of the mesh"
    bird_reflector_up
    for node in node-a node-b node-d; do
        bird_neighbors_are "$node" router
    done
    everyone_learns node-a node-b node-d
    check "a1 reaches b1" follows a1 b1
    check "a1 reaches d1" follows a1 d1
    everyone_talks a1 b1 d1
}

# Nothing says goodbye: the hold time ends the session.
dies() {
    heading "node-d dies"
    kill -KILL "$(lab_pid bird-node-d)" "$(lab_pid vswitchd-node-d)"
    in_ip router link set to-node-d down
    check "node-a's kernel loses its route when the hold time ends" \
        wait_until "$PROTOCOL_SECONDS" kernel_lacks node-a node-d
    check "a1 is told so within a second" wait_until "$FOLLOWS_SECONDS" is_told_unreachable a1 d1
    check "a1 reaches b1 all the same" follows a1 b1
    check "a1 reaches its own gateway" pings a1 "$(gateway4 node-a)"
}

main "$@"

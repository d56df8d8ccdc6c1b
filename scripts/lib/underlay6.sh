# shellcheck shell=bash
# A network under the nodes without any IPv4: the subnets of underlay.sh, their router known to the
# nodes by its link-local address alone. Sourced after nodes.sh.

declare -grA LAN6=([lan-a]=2001:db8:a: [lan-b]=2001:db8:b: [lan-out]=2001:db8:f:)
declare -grA HOST6=(
    [node-a]=2001:db8:a::11 [node-b]=2001:db8:b::12 [node-k]=2001:db8:a::13
    [outside]=2001:db8:f::200
)
# underlay6_up HOST…: the router with its subnets, and these on them.
underlay6_up() {
    local lan host
    lab_add_ns router
    in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    for lan in lan-a lan-b lan-out; do
        in_ip router link add "$lan" type bridge mcast_snooping 0
        in_ip router address add "${LAN6[$lan]}:1/64" dev "$lan"
        in_ip router address add fe80::1/64 dev "$lan"
        in_ip router link set "$lan" up
    done
    for host in "$@"; do
        lab_add_ns "$host"
        in_ip router link add "to-$host" numrxqueues 2 numtxqueues 2 type veth \
            peer name eth0 numrxqueues 2 numtxqueues 2 netns "$(ns "$host")"
        # A veth hands over what its sender left to a NIC: no checksum, superframes.
        in_ns router ethtool -K "to-$host" tx off tso off tx-udp_tnl-segmentation off \
            tx-udp_tnl-csum-segmentation off >/dev/null
        in_ip router link set "to-$host" master "${HOST_LAN[$host]}" up
        in_ns "$host" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        in_ip "$host" address add "${HOST6[$host]}/64" dev eth0
        in_ip "$host" link set eth0 up
        in_ip "$host" -6 route add default via fe80::1 dev eth0
    done
}

# underlay_add_ipv6 HOST…: hosts of underlay.sh, which has no IPv6, get these addresses and a default route
# by the router, so that the underlay has both families.
underlay_add_ipv6() {
    local host lan
    for host in "$@"; do
        lan=${HOST_LAN[$host]}
        in_ip router address replace "${LAN6[$lan]}:1/64" dev "$lan"
        in_ip "$host" address add "${HOST6[$host]}/64" dev eth0
        in_ip "$host" -6 route add default via "${LAN6[$lan]}:1"
    done
}

# node6_up NODE MODE PEER…: as node_up. NODE6_FAMILIES=6 leaves node-b's pods no IPv4.
node6_up() {
    local node=$1
    mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    node6_config "$@" >"$(node_dir "$node")/vswitch.toml"
    node_start "$node"
}

# node6_config NODE MODE PEER…: as ever, but for the underlay addresses.
node6_config() {
    local host edits=()
    for host in node-a node-b node-k; do
        edits+=(-e "s|\"${HOST_ADDRESS[$host]}\"|\"${HOST6[$host]}\"|")
    done
    [[ ${NODE6_FAMILIES:-46} != 6 ]] || edits+=(-e "s|\"${POD_PREFIX4[node-b]}\", ||")
    node_config "$@" | sed "${edits[@]}"
}

# underlay6_route_pods NODE: the router reaches that node's pods of both families by its one address.
underlay6_route_pods() {
    in_ip router route add "${POD_PREFIX4[$1]}" via inet6 "${HOST6[$1]}" dev "${HOST_LAN[$1]}"
    in_ip router -6 route add "${POD_PREFIX6[$1]}" via "${HOST6[$1]}" dev "${HOST_LAN[$1]}"
}

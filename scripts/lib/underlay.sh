# shellcheck shell=bash
# The network under the nodes: a router namespace that routes between the nodes' two subnets and a
# third one, on which there is a host outside the cluster. Sourced after lab.sh.
#
#   node-a .11   node-k .13   node-v .14    node-b .12          outside .200
#   node-d .16       │            │         node-c .15               │
#        └───────────┼────────────┘             │                    │
#     lan-a 198.51.100.0/25    lan-b 203.0.113.0/25    lan-out 203.0.113.128/25
#          └──────────────────── router (.1, .1, .129) ──────┘
#
# `outside` has routes to the two node subnets only, never to pod addresses: an answer that reaches
# it proves that the packet was masqueraded.

declare -grA LAN_PREFIX=([lan-a]=198.51.100.0/25 [lan-b]=203.0.113.0/25 [lan-out]=203.0.113.128/25)
declare -grA LAN_GATEWAY=([lan-a]=198.51.100.1 [lan-b]=203.0.113.1 [lan-out]=203.0.113.129)
declare -gA HOST_LAN=(
    [node-a]=lan-a [node-b]=lan-b [node-k]=lan-a [node-v]=lan-a [node-c]=lan-b
    [node-d]=lan-a [outside]=lan-out
)
declare -gA HOST_ADDRESS=(
    [node-a]=198.51.100.11 [node-b]=203.0.113.12 [node-k]=198.51.100.13
    [node-v]=198.51.100.14 [node-c]=203.0.113.15 [node-d]=198.51.100.16
    [outside]=203.0.113.200
)

# The router, its three subnets, and the host outside.
underlay_up() {
    local lan
    lab_add_ns router
    in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    for lan in lan-a lan-b lan-out; do
        in_ip router link add "$lan" type bridge mcast_snooping 0
        in_ip router address add "${LAN_GATEWAY[$lan]}/25" dev "$lan"
        in_ip router link set "$lan" up
    done
    underlay_attach outside
    in_ip outside route add "${LAN_PREFIX[lan-a]}" via "${LAN_GATEWAY[lan-out]}"
    in_ip outside route add "${LAN_PREFIX[lan-b]}" via "${LAN_GATEWAY[lan-out]}"
}

# underlay_attach HOST: its namespace, with a NIC eth0 of two queues in its subnet.
underlay_attach() {
    local host=$1 lan=${HOST_LAN[$1]}
    lab_add_ns "$host"
    in_ip router link add "to-$host" numrxqueues 2 numtxqueues 2 type veth \
        peer name eth0 numrxqueues 2 numtxqueues 2 netns "$(ns "$host")"
    # A veth hands over what its sender left to a NIC: no checksum, superframes. On a wire they
    # would have been completed, and AF_XDP needs them so.
    in_ns router ethtool -K "to-$host" tx off tso off tx-udp_tnl-segmentation off >/dev/null
    in_ip router link set "to-$host" master "$lan" up
    in_ip "$host" address add "${HOST_ADDRESS[$host]}/25" dev eth0
    in_ip "$host" link set eth0 up
}

# underlay_attach_node NODE: with a default route and forwarding, as a kubelet's node has.
underlay_attach_node() {
    underlay_attach "$1"
    in_ip "$1" route add default via "${LAN_GATEWAY[${HOST_LAN[$1]}]}"
    in_ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# underlay_route_pods NODE: the router reaches that node's pods, as direct routing asks for. IPv6
# goes by the NIC's link-local address, because the underlay has no other.
underlay_route_pods() {
    local node=$1 lan=${HOST_LAN[$1]} link_local
    link_local=$(in_ip "$node" -6 -json address show dev eth0 scope link |
        jq -r '[.[].addr_info[]?.local // empty][0] // empty')
    in_ip router route add "${POD_PREFIX4[$node]}" via "${HOST_ADDRESS[$node]}"
    in_ip router -6 route add "${POD_PREFIX6[$node]}" via "$link_local" dev "$lan"
}

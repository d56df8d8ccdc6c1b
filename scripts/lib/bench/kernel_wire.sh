# shellcheck shell=bash
# node-k and node-c: two nodes with the kernel's VXLAN, each with a pod on a bridge, k1 and c1, one in each
# subnet of the underlay. Sourced after kernel_node.sh.
#
# A veth hands its peer superframes that no wire would carry. `cut` has the kernel segment them before the
# sender's NIC, and merge them behind the receiver's; `uncut` lets them through whole, which is what a NIC
# with tunnel offloads spares its host. Both are measured. A NIC interrupts once for what arrives within some
# microseconds, and its driver polls it: so do all of these, and those of our nodes.

# How often a NIC polls in vain before it waits for interrupts again.
readonly MODERATED_POLLS=2

kernel_wire_up() {
    local node
    for node in node-k node-c; do
        underlay_attach_node "$node"
        receive_as_a_nic "$node"
        KERNEL_VXLAN["$node"]=vxlan0
        in_ip "$node" link add vxlan0 type vxlan id "$VNI" dev eth0 dstport 4789 nolearning
        in_ip "$node" link set vxlan0 mtu "${POD_MTU[vxlan]}" up
        in_ip "$node" link add br0 mtu "${POD_MTU[vxlan]}" type bridge mcast_snooping 0
        in_ip "$node" address add "$(gateway4 "$node")/24" dev br0
        in_ip "$node" link set br0 up
        kernel_wire_pod "$node" "${node#node-}1"
    done
    kernel_wire_peer node-c node-a
    kernel_wire_peer node-c node-k
    kernel_wire_peer node-k node-c
}

# kernel_wire_peer NODE REMOTE: through the tunnel.
kernel_wire_peer() {
    local via=${POD_PREFIX4[$2]%/24} mac
    mac=$(vtep_mac_of "$2")
    in_ip "$1" neigh add "$via" lladdr "$mac" dev vxlan0 nud permanent
    in_ns "$1" bridge fdb add "$mac" dev vxlan0 dst "${HOST_ADDRESS[$2]}"
    in_ip "$1" route add "${POD_PREFIX4[$2]}" via "$via" dev vxlan0 onlink
}

# kernel_wire_pod NODE POD
kernel_wire_pod() {
    local address=${POD_PREFIX4[$1]%0/24}10
    lab_add_ns "$2"
    in_ip "$1" link add "v-$2" mtu "${POD_MTU[vxlan]}" type veth peer name eth0 mtu "${POD_MTU[vxlan]}" netns "$(ns "$2")"
    in_ip "$1" link set "v-$2" master br0 up
    in_ip "$2" address add "$address/24" dev eth0
    in_ip "$2" link set eth0 up
    in_ip "$2" route add default via "$(gateway4 "$1")"
    printf '%s\n' "$address" >"$LAB_DIR/addresses/$2.4"
}

# kernel_way SIDE: how the nodes send and receive while that side is measured.
kernel_way() {
    local node whole=off ours=off device=vxlan0
    case $1 in
        *-uncut) whole=on ;;&
        vswitchd-uncut) ours=on ;;&
        *-routed-*) device=eth0 ;;
    esac
    for node in node-k node-c; do passes_whole "$node" "$whole"; done
    for node in node-a node-b; do passes_whole "$node" "$ours"; done
    kernel_wire_route node-k node-c "$device"
    kernel_wire_route node-c node-k "$device"
}

# send_in_order NODE CPU: what the node's pod sends is received by that CPU alone; by any CPU if none is named.
# A veth hands it to the backlog of whatever CPU sends: the program's own, and the one on which an answer arrived.
# Two superframes of a stream are cut side by side then, and their segments overtake one another, as they do not
# in a NIC's queue; their sender takes that for loss.
send_in_order() {
    local mask=0
    [[ -z ${2:-} ]] || mask=$((1 << $2))
    ip netns exec "$(ns "$1")" sh -c "printf %x $mask >/sys/class/net/v-${1#node-}1/queues/rx-0/rps_cpus"
}

# passes_whole NODE ON: whether superframes pass its NIC whole, both ways, with checksums to be completed.
passes_whole() {
    in_ns "$1" ethtool -K eth0 tso "$2" gso "$2" tx-udp_tnl-segmentation "$2" tx-udp-segmentation "$2" >/dev/null
    in_ns router ethtool -K "to-$1" tx "$2" tso "$2" tx-udp_tnl-segmentation "$2" >/dev/null
}

# kernel_wire_route NODE REMOTE DEVICE: to the remote's pods, by the tunnel or by the router.
kernel_wire_route() {
    local via=${POD_PREFIX4[$2]%/24}
    [[ $3 == vxlan0 ]] || via=${LAN_GATEWAY[${HOST_LAN[$1]}]}
    in_ip "$1" route replace "${POD_PREFIX4[$2]}" via "$via" dev "$3" onlink
}

# receive_as_a_nic NODE: its NIC is polled, merges, and interrupts as often as this run has it. A veth that merges
# nothing is not polled: each frame would go to the CPU's backlog at once. nsenter would leave another namespace's
# /sys in place.
receive_as_a_nic() {
    local polls=$((bench_interrupts_us ? MODERATED_POLLS : 0))
    in_ns "$1" ethtool -K eth0 gro on >/dev/null
    ip netns exec "$(ns "$1")" sh -c "echo ${bench_interrupts_us}000 >/sys/class/net/eth0/gro_flush_timeout &&
        echo $polls >/sys/class/net/eth0/napi_defer_hard_irqs"
}

#!/bin/bash
# Our two nodes among one as flannel makes it and one as Calico makes it, both with the kernel's own
# VXLAN and static entries: one VNI, every pair of pods.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# flannel's; Calico's are 4096 and 4789, and configurable.
readonly OVERLAY_VNI=1 OVERLAY_PORT=8472
readonly NODES=(node-a node-b node-k node-c)

main() {
    local lacks node from to
    lacks=$(kernel_vxlan_lacks)
    if [[ -n $lacks ]]; then
        skip "nodes with the kernel's VXLAN" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    printf 'vxlan\n' >"$LAB_DIR/mode"
    underlay_up
    for node in "${NODES[@]}"; do underlay_attach_node "$node"; done
    vxlan_device node-k flannel.1 "${POD_PREFIX4[node-k]%/24}" "${POD_PREFIX6[node-k]%/64}"
    vxlan_device node-c vxlan.calico "$(tunnel4 node-c)" "$(tunnel6 node-c)"
    # flannel knows a remote VTEP by its network's own address, Calico by one of its pods' addresses.
    for node in node-a node-b node-c; do
        connect node-k "$node" "${POD_PREFIX4[$node]%/24}" "${POD_PREFIX6[$node]%/64}"
    done
    for node in node-a node-b node-k; do
        connect node-c "$node" "$(tunnel4 "$node")" "$(tunnel6 "$node")"
    done
    node_up node-a vxlan node-b node-k node-c
    node_up node-b vxlan node-a node-k node-c
    for node in node-a node-b; do
        check "$node speaks as the others do" node_overlay "$node" "vni = $OVERLAY_VNI" \
            "vxlan_port = $OVERLAY_PORT"
    done
    pod_plug node-a a1
    pod_plug node-b b1
    flannel_pod_plug k1 11
    calico_pod_plug c1 12
    servers_up a1 b1 k1 c1
    matrix a1 b1 k1 c1
    for from in a1 b1 k1 c1; do
        for to in a1 b1 k1 c1; do
            [[ $from != "$to" ]] || continue
            check "packets of full size, $from to $to" full_size "$from" "$to"
        done
    done
    check "nothing but that VNI is on the wire" \
        wire "udp port $OVERLAY_PORT" "(vni|instance) $OVERLAY_VNI\\b" lan-b pings a1 "$(address c1 4)"
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
    report_end
}

# The address of a node's VXLAN device, out of its pods' prefix.
tunnel4() { printf '%s254' "${POD_PREFIX4[$1]%0/24}"; }
tunnel6() { printf '%sfe' "${POD_PREFIX6[$1]%/64}"; }

# vxlan_device NODE DEVICE ADDRESS4 ADDRESS6
vxlan_device() {
    KERNEL_VXLAN[$1]=$2
    in_ip "$1" link add "$2" type vxlan id "$OVERLAY_VNI" dev eth0 local "${HOST_ADDRESS[$1]}" \
        dstport "$OVERLAY_PORT" nolearning
    in_ip "$1" address add "$3/32" dev "$2"
    in_ip "$1" address add "$4/128" dev "$2"
    in_ip "$1" link set "$2" mtu 1450 up
}

# connect NODE REMOTE VIA4 VIA6: ARP and FDB entries of the remote VTEP, and routes to its pods.
connect() {
    local node=$1 remote=$2 via4=$3 via6=$4 device=${KERNEL_VXLAN[$1]} mac
    mac=$(vtep_mac_of "$remote")
    in_ip "$node" neigh replace "$via4" lladdr "$mac" dev "$device" nud permanent
    in_ip "$node" -6 neigh replace "$via6" lladdr "$mac" dev "$device" nud permanent
    in_ns "$node" bridge fdb append "$mac" dev "$device" dst "${HOST_ADDRESS[$remote]}"
    in_ip "$node" route replace "${POD_PREFIX4[$remote]}" via "$via4" dev "$device" onlink
    in_ip "$node" -6 route replace "${POD_PREFIX6[$remote]}" via "$via6" dev "$device" onlink
}

# flannel_pod_plug POD LAST_BYTE: on node-k, behind the bridge cni0.
flannel_pod_plug() {
    in_ip node-k link add br0 type bridge
    in_ip node-k address add "$(gateway4 node-k)/24" dev br0
    in_ip node-k address add "$(gateway6 node-k)/64" dev br0
    in_ip node-k link set br0 mtu 1450 up
    kernel_pod_plug "$@"
}

# calico_pod_plug POD LAST_BYTE: on node-c, a /32 behind a veth that answers for 169.254.1.1.
calico_pod_plug() {
    local pod=$1 last=$2 host=cali-$1 address4 address6
    address4=${POD_PREFIX4[node-c]%0/24}$last
    address6=${POD_PREFIX6[node-c]%/64}$last
    lab_add_ns "$pod"
    in_ip node-c link add "$host" mtu 1450 address ee:ee:ee:ee:ee:ee type veth \
        peer name eth0 mtu 1450 netns "$(ns "$pod")"
    in_ns node-c sysctl -qw "net.ipv4.conf.$host.proxy_arp=1" "net.ipv4.neigh.$host.proxy_delay=0"
    in_ip node-c link set "$host" up
    in_ip node-c route add "$address4/32" dev "$host" scope link
    in_ip node-c -6 route add "$address6/128" dev "$host"
    in_ip "$pod" address add "$address4/32" dev eth0
    in_ip "$pod" address add "$address6/128" dev eth0
    in_ip "$pod" link set eth0 up
    in_ip "$pod" route add 169.254.1.1 dev eth0 scope link
    in_ip "$pod" route add default via 169.254.1.1 dev eth0
    in_ip "$pod" -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0
    printf '%s\n' "$address4" >"$LAB_DIR/addresses/$pod.4"
    printf '%s\n' "$address6" >"$LAB_DIR/addresses/$pod.6"
}

# full_size FROM TO: 1450 bytes of IPv4 and of IPv6, not to be cut.
full_size() {
    in_ns "$1" ping -q -n -M "do" -s 1422 -c 2 -i 0.2 -w 3 "$(address "$2" 4)" &&
        in_ns "$1" ping -q -n -M "do" -s 1402 -c 2 -i 0.2 -w 3 "$(address "$2" 6)"
}

main "$@"

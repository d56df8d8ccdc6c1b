# shellcheck shell=bash
# node-k: a node that runs only the kernel's own VXLAN, typed as the classic tutorials type it, with
# pods on a bridge. The peer that none of our code had a part in. Sourced after nodes.sh.

# The VXLAN device of each node that runs only the kernel's.
declare -gA KERNEL_VXLAN=()

# vtep_mac_of NODE: that of its VXLAN device, as the kernel chose it; or of our nodes, 02:76 and the
# four bytes of the underlay address.
vtep_mac_of() {
    local a b c d
    if [[ -n ${KERNEL_VXLAN[$1]:-} ]]; then
        in_ip "$1" -json link show dev "${KERNEL_VXLAN[$1]}" | jq -r '.[0].address'
        return
    fi
    IFS=. read -r a b c d <<<"${HOST_ADDRESS[$1]}"
    printf '02:76:%02x:%02x:%02x:%02x' "$a" "$b" "$c" "$d"
}

kernel_node_up() {
    local node peer4 peer6 mac
    underlay_attach_node node-k
    KERNEL_VXLAN[node-k]=vxlan0
    in_ip node-k link add vxlan0 type vxlan id "$VNI" dev eth0 dstport 4789 nolearning
    in_ip node-k address add 198.18.3.0/32 dev vxlan0
    in_ip node-k address add fd00:18:3::/128 dev vxlan0
    in_ip node-k link set vxlan0 up
    for node in node-a node-b; do
        # The network's own address stands for the remote VTEP, as flannel has it.
        peer4=${POD_PREFIX4[$node]%/24}
        peer6=${POD_PREFIX6[$node]%/64}
        mac=$(vtep_mac_of "$node")
        in_ip node-k neigh add "$peer4" lladdr "$mac" dev vxlan0 nud permanent
        in_ip node-k -6 neigh add "$peer6" lladdr "$mac" dev vxlan0 nud permanent
        in_ns node-k bridge fdb add "$mac" dev vxlan0 dst "${HOST_ADDRESS[$node]}"
        in_ip node-k route add "${POD_PREFIX4[$node]}" via "$peer4" dev vxlan0 onlink
        in_ip node-k -6 route add "${POD_PREFIX6[$node]}" via "$peer6" dev vxlan0 onlink
    done
    in_ip node-k link add br0 type bridge
    in_ip node-k address add "$(gateway4 node-k)/24" dev br0
    in_ip node-k address add "$(gateway6 node-k)/64" dev br0
    in_ip node-k link set br0 mtu 1450 up
}

# kernel_pod_plug POD LAST_BYTE: a namespace with a veth into br0.
kernel_pod_plug() {
    local pod=$1 last=$2
    lab_add_ns "$pod"
    in_ip node-k link add "v-$pod" mtu 1450 type veth peer name eth0 mtu 1450 netns "$(ns "$pod")"
    in_ip node-k link set "v-$pod" master br0 up
    in_ip "$pod" address add "198.18.3.$last/24" dev eth0
    in_ip "$pod" address add "fd00:18:3::$last/64" dev eth0
    in_ip "$pod" link set eth0 up
    in_ip "$pod" route add default via "$(gateway4 node-k)"
    in_ip "$pod" -6 route add default via "$(gateway6 node-k)"
    printf '198.18.3.%s\n' "$last" >"$LAB_DIR/addresses/$pod.4"
    printf 'fd00:18:3::%s\n' "$last" >"$LAB_DIR/addresses/$pod.6"
}

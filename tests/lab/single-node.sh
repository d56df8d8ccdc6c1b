#!/bin/bash
# A node that is alone: no NIC is named, and its pods reach one another, the node, and by its kernel and
# whatever NIC that routes by, the world, which reaches them by a port of the node's.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

OUTSIDE=${HOST_ADDRESS[outside]}
OUTSIDE6=${HOST6[outside]}
NODE=${HOST_ADDRESS[node-a]}
NODE6=${HOST6[node-a]}

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_add_ipv6 node-a outside
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    node_config node-a vxlan | sed '/^\[uplink\]/,/^$/d' >"$(node_dir node-a)/vswitch.toml"
    check "vswitchd starts without an uplink" node_start node-a
    check "and leaves the NIC alone" no_xdp
    check "it has a host port" says '.uplink == null and .host_interface == "vsw0"'
    pod_plug node-a a1
    pod_plug node-a a2
    servers_up a1 a2 node-a outside
    who_servers_up a1 outside
    heading "Row reaches column: ping IPv4, ping IPv6, TCP IPv4, TCP IPv6"
    matrix a1 a2 node-a
    check "a pod and the NIC's address" sees a1 "$NODE" "$(address a1 4) $NODE"
    check "a pod pings the world" pings a1 "$OUTSIDE"
    check "the world sees it as the node, TCP" sees a1 "$OUTSIDE" "$NODE $OUTSIDE"
    check "UDP" sees_by_udp a1 "$OUTSIDE" "$NODE $OUTSIDE"
    check "and over IPv6" sees a1 "$OUTSIDE6" "$NODE6 $OUTSIDE6"
    check "and a pod's file comes whole" transfers a1 "$OUTSIDE"
    published
    check "every packet is accounted for" accounts node-a
    report_end
}

no_xdp() { ! in_ip node-a link show dev eth0 | finds xdp; }

says() { ctl node-a status --json | jq -e "$1"; }

# A port of the node's, as `podman run --publish` has it translated. The node's own server has another.
published() {
    in_ns node-a nft -f - <<NFT
table inet publish {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local tcp dport 80 dnat ip to $(address a1 4):$SERVER_PORT
  }
}
NFT
    check "the world reaches a pod by a port of the node's" \
        test "$(in_ns outside curl -sS --noproxy '*' --max-time 5 "http://$NODE/who")" = \
        "$OUTSIDE $(address a1 4)"
}

main "$@"

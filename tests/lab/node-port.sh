#!/bin/bash
# NodePorts that kube-proxy serves: a client outside of the cluster is masqueraded, and the pod sees it by an
# address of its node by which the node itself never speaks. So kubelet, which comes from the gateway's
# address, is told from the world: it reaches a pod that policies isolate, and the client does not until one of
# them allows that address.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    node_up node-a vxlan node-b
    ATTACHMENT_MODE=bridged node_up node-b vxlan node-a
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1
    who_servers_up a1 b1
    underlay_add_ipv6 node-a node-b outside
    node_port node-a a1
    node_port node-b b1
    told_apart "a routed pod" node-a a1
    told_apart "a bridged pod" node-b b1
    check "pods reach the address, as they do the gateway's" pings a1 "$(masquerade4 node-a)"
    check "over IPv6 too" pings a1 "$(masquerade6 node-a)"
    check "status and show ports name it" shown
    isolated "a routed pod" node-a a1
    isolated "a bridged pod" node-b b1
    node_port node-a b1
    told_apart "a pod of another node" node-a b1
    isolated "a pod of another node" node-a b1
    taken_away
    restarted
    from_a_former_version
    check "node-a accounts for every packet" accounts node-a
    small
    report_end
}

# node_port NODE POD: as kube-proxy has it, for the port on which the pod's servers listen.
node_port() {
    local at4=${HOST_ADDRESS[$1]} at6=${HOST6[$1]}
    in_ns "$1" nft -f - <<NFT
table inet kube-proxy
delete table inet kube-proxy
table inet kube-proxy {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto { tcp, udp } th dport $SERVER_PORT ip daddr $at4 meta mark set 0x4000 dnat ip to $(address "$2" 4)
    meta l4proto { tcp, udp } th dport $SERVER_PORT ip6 daddr $at6 meta mark set 0x4000 dnat ip6 to $(address "$2" 6)
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 == 0 return
    masquerade
  }
}
NFT
}

# told_apart WHAT NODE POD
told_apart() {
    local family at pod
    for family in 4 6; do
        at=$(at "$2" "$family")
        pod=$(address "$3" "$family")
        check "IPv$family: $1 sees a NodePort's client by the address to masquerade by" \
            sees outside "$at" "$("masquerade$family" "$2") $pod"
        check "by UDP too" sees_by_udp outside "$at" "$("masquerade$family" "$2") $pod"
        check "and a process of the node by the gateway's" sees "$2" "$pod" "$("gateway$family" "$2") $pod"
    done
}

# isolated WHAT NODE POD: behind a NodePort of that node.
isolated() {
    local what=$1 node=$2 pod=$3 own family
    own=$(node_of "$pod")
    sync_policies "$own" "$(rule_set deny)" "$(subjects "$pod=deny/")" >/dev/null
    for family in 4 6; do
        check_not "IPv$family: no NodePort's client reaches $what that is isolated" fetch outside "$(at "$node" "$family")" who
        check_not "nor by UDP" fetch_by_udp outside "$(at "$node" "$family")"
        check "its own node does" sees "$own" "$(address "$pod" "$family")" \
            "$("gateway$family" "$own") $(address "$pod" "$family")"
    done
    sync_policies "$own" "$(rule_set world "$(allow_blocks "${HOST_ADDRESS[outside]}/32" "${HOST6[outside]}/128")")" \
        "$(subjects "$pod=world/")" >/dev/null
    for family in 4 6; do
        check_not "IPv$family: nor where a policy allows the client's own address" fetch outside "$(at "$node" "$family")" who
    done
    sync_policies "$own" "$(rule_set world "$(allow_blocks "$(masquerade4 "$node")/32" "$(masquerade6 "$node")/128")")" >/dev/null
    for family in 4 6; do
        check "IPv$family: but where it allows the address by which the node masquerades" sees outside \
            "$(at "$node" "$family")" "$("masquerade$family" "$node") $(address "$pod" "$family")"
        check "by UDP too" sees_by_udp outside \
            "$(at "$node" "$family")" "$("masquerade$family" "$node") $(address "$pod" "$family")"
    done
    sync_policies "$own" "$(subjects "$pod=/")" >/dev/null
}

# node_of POD
node_of() { echo "node-${1%1}"; }

# at NODE FAMILY: its address on the underlay.
at() { if (($2 == 4)); then echo "${HOST_ADDRESS[$1]}"; else echo "${HOST6[$1]}"; fi; }

shown() {
    ctl node-a show ports --json |
        jq -e --arg v4 "$(masquerade4 node-a)" --arg v6 "$(masquerade6 node-a)" \
            'any(.[] | select(.kind == "host"); .addresses | contains([$v4, $v6]))'
}

# is_right NODE: the first of IPv4, and the only one of IPv6 that is not deprecated.
is_right() {
    local first preferred
    first=$(in_ip "$1" -4 -json address show dev vsw0 | jq -r '.[0].addr_info[0].local')
    [[ $first == "$(masquerade4 "$1")" ]] || { echo "the first is $first" && return 1; }
    preferred=$(in_ip "$1" -6 -json address show dev vsw0 scope global | jq -r '.[].addr_info[]? | select(.local and (.deprecated | not)).local')
    [[ $preferred == "$(masquerade6 "$1")" ]] || { echo "preferred is $preferred" && return 1; }
}

taken_away() {
    in_ip node-a address del "$(masquerade4 node-a)/32" dev vsw0
    check "an address that another program takes away is put back, and is first" wait_until 10 is_right node-a
    in_ip node-a -6 address change "$(gateway6 node-a)/128" dev vsw0 preferred_lft forever
    check "a gateway's that it prefers is deprecated again" wait_until 10 is_right node-a
    told_apart "a pod of another node, after that" node-a b1
}

restarted() {
    node_port node-a a1
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    check "the addresses outlive the daemon" is_right node-a
    started
    told_apart "a pod of a daemon that was killed" node-a a1
}

started() {
    node_spawn node-a
    wait_until 20 ctl node-a status
    node_adjust node-a >/dev/null
    check "a daemon that starts leaves them as they are" wait_until 10 is_right node-a
}

# It knew the gateway's addresses alone, and may have given the highest to a pod.
from_a_former_version() {
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    in_ip node-a address del "$(masquerade4 node-a)/32" dev vsw0
    in_ip node-a address del "$(masquerade6 node-a)/128" dev vsw0
    in_ip node-a -6 address change "$(gateway6 node-a)/128" dev vsw0 preferred_lft forever
    started
    told_apart "a pod of a daemon that knew none" node-a a1
}

# A prefix of 30 bits has one pod, which needs its only address.
small() {
    lab_signal vswitchd-node-a TERM
    wait_until 5 lab_gone vswitchd-node-a
    rm -rf "$(node_dir node-a)/state"
    mkdir "$(node_dir node-a)/state"
    sed -i "s|^pod_prefixes.*|pod_prefixes = [\"${POD_PREFIX4[node-a]%/*}/30\", \"${POD_PREFIX6[node-a]%/*}/126\"]|" \
        "$(node_dir node-a)/vswitch.toml"
    node_spawn node-a
    wait_until 20 ctl node-a status
    check "a prefix too small for it has none" wait_until 10 has_gateway_alone
}

has_gateway_alone() {
    local all
    all=$(in_ip node-a -json address show dev vsw0 scope global | jq -r '.[].addr_info[]? | select(.local) | "\(.local) \(.deprecated // false)"')
    [[ $all == "$(printf '%s false\n' "$(gateway4 node-a)" "$(gateway6 node-a)")" ]] || { echo "$all" && return 1; }
}

main "$@"

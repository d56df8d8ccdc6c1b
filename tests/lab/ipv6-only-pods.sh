#!/bin/bash
# Pods without IPv4, over an IPv4 underlay: in VXLAN and as protocol 41 under IPIP. Whatever has an
# IPv4 half (the gateway, the host port, masquerading) does without it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local mode
    setup_binaries
    lab_trap
    for mode in vxlan ipip; do
        lab_create
        underlay_up
        only6_up node-a "$mode" node-b
        only6_up node-b "$mode" node-a
        pod_plug node-a a1
        pod_plug node-a a2
        pod_plug node-b b1
        servers_up a1 a2 b1
        judge "$mode"
        lab_down
    done
    report_end
}

judge() {
    local mode=$1 from to
    check "$mode: a1 has no IPv4 address and no IPv4 route" without_v4 a1
    for from in a1 a2 b1; do
        for to in a1 a2 b1; do
            [[ $from == "$to" ]] || check "$mode: $from fetches from $to" talks "$from" "$to" 6
        done
    done
    check "$mode: a1 reaches itself by its own address" talks a1 a1 6
    check "$mode: a1 pings its gateway" pings a1 "$(gateway6 node-a)"
    check "$mode: node-a fetches from b1, seen as its gateway address" talks node-a b1 6
    check "$mode: the host port has no IPv4 address" host_without_v4
    check "$mode: CNI CHECK is content with a1" checks_out a1
    check "$mode: node-a accounts for every packet" accounts node-a
    check "$mode: CNI DEL of a1" pod_unplug node-a a1
}

# only6_up NODE MODE PEER
only6_up() {
    local node=$1
    underlay_attach_node "$node"
    mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    node_config "$@" | sed -E 's#"198\.18\.[0-9]+\.0/[0-9]+", ##' >"$(node_dir "$node")/vswitch.toml"
    node_start "$node"
}

without_v4() {
    [[ -z $(address "$1" 4) && -z $(in_ip "$1" -4 route) ]] &&
        in_ip "$1" -4 -json address show dev eth0 | jq -e 'all(.[]; (.addr_info // []) == [])'
}

host_without_v4() {
    [[ -z $(in_ip node-a -4 -o address show dev vsw0) ]]
}

checks_out() { cni node-a CHECK "$1" "$(cat "$(node_dir node-a)/pods/$1.json")"; }

main "$@"

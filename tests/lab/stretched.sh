#!/bin/bash
# One L2 segment over both nodes: their bridged pods have addresses of the same prefix, resolve one
# another by ARP and find one another by learning; and go on doing so when the list of VTEPs changes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    # node-k takes no part: nobody is at its address.
    stretched_up node-a "${HOST_ADDRESS[node-k]}" "${HOST_ADDRESS[node-b]}"
    stretched_up node-b "${HOST_ADDRESS[node-a]}"
    pod_plug node-a a1
    # Both nodes give their addresses in the same order: a1's stays free at node-b.
    pod_plug node-b b0
    pod_plug node-b b1
    pod_unplug node-b b0
    servers_up a1 b1
    check "a1 reaches b1" talks a1 b1 4
    check "and over IPv6" talks a1 b1 6
    check "a1 resolved b1's own MAC" resolved a1 b1
    check "b1 was learned behind node-b" learned_behind node-a b1 "${HOST_ADDRESS[node-b]}"
    another_list "in another order" "${HOST_ADDRESS[node-b]}" "${HOST_ADDRESS[node-k]}"
    another_list "without the other one" "${HOST_ADDRESS[node-b]}"
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# another_list WHAT VTEP…: a1 has b1's MAC, and b1 says nothing from which it could be learned anew.
another_list() {
    local what=$1 before
    shift
    before=$(reloads)
    stretched_config node-a "$@" >"$(node_dir node-a)/vswitch.toml"
    kill -HUP "$(lab_pid vswitchd-node-a)"
    check "the list of VTEPs is reloaded $what" wait_until 5 reloaded_since "$before"
    # At once: ARP would cure it within seconds.
    check "a1 still reaches b1" in_ns a1 ping -q -n -c 1 -W 1 "$(address b1 4)"
    check "behind node-b" learned_behind node-a b1 "${HOST_ADDRESS[node-b]}"
}

reloads() { grep -c 'the configuration is reloaded' "$LAB_DIR/logs/vswitchd-node-a.log" || true; }

reloaded_since() { (($(reloads) > $1)); }

# stretched_up NODE VTEP…
stretched_up() {
    mkdir -p "$(node_dir "$1")/state" "$(node_dir "$1")/pods"
    stretched_config "$@" >"$(node_dir "$1")/vswitch.toml"
    node_start "$1"
}

# stretched_config NODE VTEP…: the segment's prefixes are node-a's, on both nodes.
stretched_config() {
    local node=$1 vteps
    shift
    vteps=$(printf '"%s", ' "$@")
    ATTACHMENT_MODE=bridged node_config "$node" vxlan |
        sed "s|198\.18\.2\.0|198.18.1.0|; s|fd00:18:2::|fd00:18:1::|"
    printf '\n[bridge]\nvni = 20\nvteps = [%s]\n' "${vteps%, }"
}

mac_of() { in_ip "$1" -json link show dev eth0 | jq -r '.[0].address'; }

resolved() {
    in_ip "$1" -json neigh show "$(address "$2" 4)" dev eth0 |
        jq -e --arg mac "$(mac_of "$2")" 'any(.lladdr == $mac)'
}

# learned_behind NODE POD VTEP
learned_behind() {
    ctl "$1" show fdb --json |
        jq -e --arg mac "$(mac_of "$2")" --arg vtep "$3" \
            'any(.[]; .mac == $mac and .vtep == $vtep)' || { ctl "$1" show fdb && return 1; }
}

main "$@"

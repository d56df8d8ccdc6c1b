#!/bin/bash
# The cluster gives a node other pod prefixes while bridged pods run. A pod of the former ones goes on
# to use their gateway, and has it resolved when it has lost the permanent entry that it was plugged
# with; so does one of the current ones.
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
    node_without_prefixes
    given "${POD_PREFIX4[node-a]}" "${POD_PREFIX6[node-a]}"
    pod_plug node-a a1
    given "${POD_PREFIX4[node-d]}" "${POD_PREFIX6[node-d]}"
    pod_plug node-a a2
    servers_up a1 a2 outside
    check "a1 has an address of the former prefix" in_net a1 "${POD_PREFIX4[node-a]}"
    check "a2 has one of the current" in_net a2 "${POD_PREFIX4[node-d]}"
    resolves a1 node-a
    resolves a2 node-d
    check "a1 fetches from outside, seen as its node" sees a1 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    check "a1 fetches from a2" talks a1 a2 4
    check "a2 fetches from a1" talks a2 a1 4
    check "a1 fetches from a2 over IPv6" talks a1 a2 6
    pod_unplug node-a a1
    check "the gateway goes with the last of its pods" no_gateway node-a "$(gateway4 node-a)"
    check "the current one stays" has_gateway node-a "$(gateway4 node-d)"
    report_end
}

# Its prefixes are the cluster's to tell.
node_without_prefixes() {
    local dir
    dir=$(node_dir node-a)
    mkdir -p "$dir/state" "$dir/pods"
    ATTACHMENT_MODE=bridged node_config node-a vxlan | sed '/^pod_prefixes/d' >"$dir/vswitch.toml"
    node_start node-a
}

given() {
    local prefixes
    prefixes=$(jq -cn '$ARGS.positional' --args "$@")
    /usr/bin/python3 "$root/tests/lab/ask.py" "$(node_socket node-a)" set-pod-prefixes "$prefixes" >/dev/null
}

in_net() { [[ $(address "$1" 4) == "${2%0/24}"* ]]; }

# resolves POD NODE: the gateways of that node's prefixes, which it does not know any more.
resolves() {
    local gateway
    for gateway in "$(gateway4 "$2")" "$(gateway6 "$2")"; do
        in_ip "$1" neigh del "$gateway" dev eth0
        check "$1 resolves $gateway" pings "$1" "$gateway"
        check "to the gateway's MAC" has_neighbor "$1" "$gateway" 02:76:73:00:00:01
    done
}

# has_neighbor POD ADDRESS MAC
has_neighbor() {
    in_ip "$1" -json neigh show "$2" dev eth0 | jq -e --arg mac "$3" 'any(.lladdr == $mac)'
}

has_gateway() { in_ip "$1" -oneline address show dev vsw0 | finds -F " $2/"; }

no_gateway() { ! has_gateway "$@"; }

main "$@"

#!/bin/bash
# vswitchctl as an operator and his programs use it: every answer as JSON with the keys that it always
# has, traces of packets from every kind of port, changes at run time that outlive a kill, and
# refusals that say what to do.
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
    node_up node-a vxlan
    node_up node-b vxlan node-a
    pod_plug node-a a1
    pod_plug node-b b1
    run_time_changes
    json
    traces
    refusals
    report_end
}

# node-a starts without a peer.
run_time_changes() {
    local b1
    b1=$(address b1 4)
    check_not "without its node as a peer b1 is out of reach" pings a1 "$b1"
    check "peer add" ctl node-a peer add node-b "${HOST_ADDRESS[node-b]}" \
        --prefix "${POD_PREFIX4[node-b]}" --prefix "${POD_PREFIX6[node-b]}"
    check "with it b1 is reached" wait_until 5 pings a1 "$b1"
    check "route add" ctl node-a route add "$b1/32" blackhole
    check_not "what a blackhole's route takes is lost" pings a1 "$b1"
    check "under that name" has_drop node-a blackhole
    check "route del" ctl node-a route del "$b1/32"
    check "and b1 is reached again" pings a1 "$b1"
    lab_signal vswitchd-node-a KILL
    check "after a kill vswitchd starts" node_start node-a
    check "and knows the peer" wait_until 5 has_peer node-a node-b
    check "the node reaches b1 by it" wait_until 5 pings node-a "$b1"
}

has_peer() { ctl "$1" show peers --json | jq -e --arg name "$2" 'any(.[]; .name == $name and .state == "ready")'; }

has_drop() { ctl "$1" show drops --json | jq -e --arg reason "$2" 'any(.reasons[]; .reason == $reason and .packets > 0)'; }

json() {
    keys status 'choices epoch masquerade node pod_mtu pods uplink uptime_seconds version warnings workers'
    keys 'show ports' 'addresses attachment counters id kind mac mtu name up worker'
    keys 'show fib' 'mtu prefix source target'
    keys 'show neighbors' 'address mac on source state'
    keys 'show peers' 'address in_force mtu name next_hop next_hop_mac prefixes source state'
    keys 'show drops' 'dropped made reasons received sent'
    keys "trace --from vsw0 --to $(address b1 4)" 'doors dropped leaves packet verdict'
    check "show fdb answers in JSON" in_json show fdb
}

in_json() { ctl node-b "$@" --json | jq -e 'type == "array"'; }

# keys COMMAND KEYS: of the answer, or of every entry of a list that is not empty.
keys() {
    local words wanted
    read -ra words <<<"$1"
    wanted=$(jq -Rc 'split(" ")' <<<"$2")
    check "$1 answers in JSON" has_keys "$wanted" "${words[@]}"
}

has_keys() {
    local wanted=$1
    shift
    ctl node-b "$@" --json | jq -e --argjson wanted "$wanted" '
        (if type == "array" then . else [.] end)
        | length > 0 and all(.[]; ($wanted - keys) == [])'
}

traces() {
    local a1 b1
    a1=$(address a1 4) b1=$(address b1 4)
    traced "a pod to another node's" 'rewrite.*leave by eth0' --from demo/b1 --to "$a1"
    traced "the node to its pod" 'route to demo/b1' --from vsw0 --to "$b1"
    traced "a pod to the world" 'route to vsw0' --from demo/b1 --to "${HOST_ADDRESS[outside]}"
    traced "another node's pod, from the NIC" 'decap.*VXLAN' --from eth0 --src "$a1" --to "$b1"
    traced "a stranger, from the NIC" 'drop: ' --from eth0 --src 198.18.99.1 --to "$b1"
}

# traced WHAT PATTERN ARGUMENTS…
traced() {
    local what=$1 pattern=$2
    shift 2
    check "a trace of $what" told "$pattern" trace "$@"
}

# told PATTERN COMMAND…: whatever its exit code, it says so.
told() {
    local pattern=$1 said
    shift
    said=$(ctl node-b "$@" 2>&1) || true
    grep -Eq "$pattern" <<<"$said" || { echo "$said" && return 1; }
}

refusals() {
    check "a port that is not there" told 'no port "nobody"' trace --from nobody --to 198.18.1.1
    check "the NIC without a source" told 'give its source' trace --from eth0 --to "$(address b1 4)"
    check "a peer with another's pods" told 'node-a' peer add node-c 203.0.113.99 --prefix 198.18.1.128/25
    check "a route that the file has not and nobody added" told '198.18.77.0/24' route del 198.18.77.0/24
    check "a bridge domain that is not there" told 'there is no bridge domain' \
        fdb add 02:00:00:00:00:01 203.0.113.99 --bridge nowhere
    lab_stop vswitchd-node-b
    check "a daemon that does not run" told 'no vswitchd listens' status
}

main "$@"

#!/bin/bash
# A pod's hostPort that is left to the plugin `portmap`, by a conflist that chains it: executed whole, as a
# runtime executes it, which tells port mappings to those plugins alone that declare the capability.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

NODE=${HOST_ADDRESS[node-a]}
NODE6=${HOST6[node-a]}
OUTSIDE=${HOST_ADDRESS[outside]}
OUTSIDE6=${HOST6[outside]}
# The checks' clients ask for this port; the pod's server has it, too.
readonly HOST_PORT=$SERVER_PORT
readonly PLUGINS=/usr/lib/cni

main() {
    if [[ ! -x $PLUGINS/portmap ]] || ! command -v iptables >/dev/null; then
        skip "hostPort" "there is no $PLUGINS/portmap, or no iptables, which it executes"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    CNI_CONFLIST=$LAB_DIR/chained.conflist
    chain_portmap >"$CNI_CONFLIST"
    two_nodes_up vxlan
    underlay_add_ipv6 node-a outside
    chain_plug node-a a1 "[$(mapping tcp), $(mapping udp)]"
    chain_plug node-a a2 '[]'
    pod_plug node-b b1
    servers_up a1 a2
    who_servers_up a1
    reached 4 "$NODE" "$OUTSIDE"
    reached 6 "$NODE6" "$OUTSIDE6"
    check "from a pod of another node" sees b1 "$NODE" "${HOST_ADDRESS[node-b]} $(address a1 4)"
    check "from the node's loopback address" sees node-a 127.0.0.1 "$(masquerade4 node-a) $(address a1 4)"
    check "pods by their own addresses" talks a2 a1 4
    check "DEL of the pod without any" chain_unplug node-a a2
    check "the port stays" sees outside "$NODE" "$OUTSIDE $(address a1 4)"
    check "DEL" chain_unplug node-a a1
    check_not "the port is nobody's" fetch outside "$NODE" who
    check "no translation is left" untranslated
    report_end
}

# The conflist that is shipped, with the capability at portmap alone.
chain_portmap() {
    jq '.plugins = [.plugins[0] | del(.capabilities)]
        + [{type: "portmap", capabilities: {portMappings: true}}]' "$root/config/10-vswitch.conflist"
}

# mapping PROTOCOL
mapping() {
    printf '{"hostPort": %s, "containerPort": %s, "protocol": "%s"}' "$HOST_PORT" "$SERVER_PORT" "$1"
}

# reached FAMILY NODE OUTSIDE: a1's port, from everywhere.
reached() {
    local pod seen
    pod=$(address a1 "$1") seen=$("masquerade$1" node-a)
    check "IPv$1: from outside, TCP" sees outside "$2" "$3 $pod"
    check "IPv$1: from outside, UDP" sees_by_udp outside "$2" "$3 $pod"
    check "IPv$1: from outside, a file" transfers outside "$2"
    check "IPv$1: from the node" sees node-a "$2" "$2 $pod"
    check "IPv$1: from another pod of the node, TCP" sees a2 "$2" "$seen $pod"
    check "IPv$1: from another pod of the node, UDP" sees_by_udp a2 "$2" "$seen $pod"
    check "IPv$1: from the pod itself" sees a1 "$2" "$seen $pod"
}

# chain_plug NODE POD MAPPINGS: as pod_plug, by every plugin of the conflist in turn.
chain_plug() {
    local node=$1 pod=$2 mappings=$3 result index previous=null
    result=$(node_dir "$node")/pods/$pod.json
    printf '%s' "$mappings" >"$result.mappings"
    lab_add_ns "$pod"
    for index in $(plugins); do
        chained "$node" ADD "$pod" "$index" "$previous" >"$result" 2>>"$LAB_DIR/logs/cni-$node.log" ||
            die "ADD of $pod failed: $(cat "$result")"
        previous=$(cat "$result")
    done
    pod_address "$result" '\.' >"$LAB_DIR/addresses/$pod.4"
    pod_address "$result" ':' >"$LAB_DIR/addresses/$pod.6"
}

# chain_unplug NODE POD: the last plugin first.
chain_unplug() {
    local result index
    result=$(node_dir "$1")/pods/$2.json
    for index in $(plugins | tac); do
        chained "$1" DEL "$2" "$index" "$(cat "$result")" || return 1
    done
}

# Numbers of the plugins.
plugins() { jq -r '.plugins | keys[]' "$CNI_CONFLIST"; }

# chained NODE COMMAND POD INDEX PREVIOUS_RESULT: one plugin of the conflist; what it does not declare, it
# is not told.
chained() {
    local node=$1 command=$2 pod=$3 index=$4 previous=$5 program
    program=$(jq -r --argjson index "$index" '.plugins[$index].type' "$CNI_CONFLIST")
    [[ -x $bin/$program ]] && program=$bin/$program || program=$PLUGINS/$program
    jq --arg socket "$(node_socket "$node")" --arg state "$(node_dir "$node")/state" --argjson index "$index" --argjson previous "$previous" \
        --slurpfile mappings "$(node_dir "$node")/pods/$pod.json.mappings" '
        {cniVersion, name} + .plugins[$index]
        | if .type == "vswitch-cni" then .socket = $socket | .stateDir = $state else . end
        | if .capabilities.portMappings then .runtimeConfig = {portMappings: $mappings[0]} else . end
        | del(.capabilities)
        | if $previous == null then . else .prevResult = $previous end
    ' "$CNI_CONFLIST" |
        in_ns "$node" env -i PATH="$PATH" CNI_COMMAND="$command" CNI_CONTAINERID="$(ns "$pod")" \
            CNI_NETNS="/run/netns/$(ns "$pod")" CNI_IFNAME=eth0 CNI_PATH="$bin:$PLUGINS" \
            CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=$pod" \
            timeout 20 "$program"
}

untranslated() { ! in_ns node-a nft list ruleset | grep CNI-DN-; }

main "$@"

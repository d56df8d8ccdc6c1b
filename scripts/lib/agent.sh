# shellcheck shell=bash
# vswitch-agent on the lab's nodes, and a cluster for it: a Kubernetes API server on the host outside,
# which the nodes reach by the underlay as they would in a real cluster, and one ServiceAccount with
# the rights that config/kubernetes gives. Sourced after all_kubernetes.sh.

# agent_cluster_up: underlay, API server, and node-a and node-b with vswitchd, which know neither
# their pods' prefixes nor one another.
agent_cluster_up() {
    local node
    underlay_up
    kube_up_in_lab outside --address "${HOST_ADDRESS[outside]}"
    kube_apply "$root/config/kubernetes/base/namespace.yaml"
    kube_apply "$root/config/kubernetes/base/rbac.yaml"
    kube_service_account vswitch-system vswitch-agent >"$LAB_DIR/agent.kubeconfig"
    for node in node-a node-b; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods" "$(node_dir "$node")/net.d"
        node_config "$node" vxlan | sed '/^pod_prefixes/d' >"$(node_dir "$node")/vswitch.toml"
        node_start "$node"
    done
}

# node_of_cluster NODE: the object of a node of the lab, as kubelet and controllers would make it.
node_of_cluster() {
    node_create "$1" "${POD_PREFIX4[$1]},${POD_PREFIX6[$1]}" "${HOST_ADDRESS[$1]}"
}

# agent_start NODE [OPTION…]
agent_start() {
    local node=$1
    shift
    lab_spawn "agent-$node" "$node" env NO_COLOR=1 "$bin/vswitch-agent" --node-name "$node" \
        --socket "$(node_socket "$node")" --kubeconfig "$LAB_DIR/agent.kubeconfig" \
        --state-file "$(agent_state_file "$node")" \
        --conflist "$root/config/10-vswitch.conflist" --cni-conf-dir "$(node_dir "$node")/net.d" \
        --cni-bin-dir /usr/lib/cni "$@"
}

agent_state_file() { printf '%s/agent.json' "$(node_dir "$1")"; }

# agent_state NODE FILTER: what jq makes of the agent's state.
agent_state() { jq -er "$2" "$(agent_state_file "$1")"; }

# agent_ready NODE: as the kubelet would ask.
agent_ready() { "$bin/vswitch-agent" probe --state-file "$(agent_state_file "$1")"; }

# peer NODE NAME FILTER: jq says so of a peer that the daemon has in force from Kubernetes.
peer() {
    ctl "$1" --json show peers | jq -e --arg name "$2" \
        "first(.[] | select(.name == \$name and .source == \"kubernetes\" and .state != \"refused\")) | $3"
}

# no_peer NODE NAME
no_peer() { ! peer "$1" "$2" true; }

# peers_of NODE: how many it has from Kubernetes.
peers_of() {
    ctl "$1" --json show peers | jq '[.[] | select(.source == "kubernetes" and .state != "refused")] | length'
}

has_peers() { [[ $(peers_of "$1") == "$2" ]]; }

# epoch NODE: of the tables that forward.
epoch() { ctl "$1" --json status | jq -er .epoch; }

# is_node NAME FILTER: jq says so of the object.
is_node() { kube_api GET "/api/v1/nodes/$1" | jq -e "$2" >/dev/null; }

# annotate NAME JSON: adds these annotations; null removes one.
annotate() { node_patch "$1" "{\"metadata\": {\"annotations\": $2}}"; }

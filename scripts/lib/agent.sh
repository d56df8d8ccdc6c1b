# shellcheck shell=bash
# vswitch-agent on the lab's nodes, and a cluster for it: a Kubernetes API server on the host outside,
# which the nodes reach by the underlay as they would in a real cluster, and one ServiceAccount with
# the rights that config/kubernetes gives. Sourced after all_kubernetes.sh.

# agent_cluster_up: underlay, API server, and node-a and node-b with vswitchd, which know neither
# their pods' prefixes nor one another. NODE_TOML is added to their configuration.
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
        printf '%s\n' "${NODE_TOML:-}" >>"$(node_dir "$node")/vswitch.toml"
        node_start "$node"
    done
}

# node_of_cluster NODE: the object of a node of the lab, as kubelet and controllers would make it.
node_of_cluster() {
    node_create "$1" "${POD_PREFIX4[$1]},${POD_PREFIX6[$1]}" "${HOST_ADDRESS[$1]}"
}

# agent_start NODE [OPTION…]. Pods that are plugged without an object would be closed where policies are told:
# AGENT_POLICIES=true has them told.
agent_start() {
    local node=$1
    shift
    lab_spawn "agent-$node" "$node" env NO_COLOR=1 "$bin/vswitch-agent" --node-name "$node" \
        --socket "$(node_socket "$node")" --kubeconfig "$LAB_DIR/agent.kubeconfig" \
        --state-file "$(agent_state_file "$node")" \
        --conflist "$root/config/10-vswitch.conflist" --cni-conf-dir "$(node_dir "$node")/net.d" \
        --cni-bin-dir /usr/lib/cni --policies "${AGENT_POLICIES:-false}" "$@"
}

# agents_up: Nodes and agents of node-a and node-b, which are ready.
agents_up() {
    local node
    for node in node-a node-b; do
        node_of_cluster "$node"
        agent_start "$node"
    done
    for node in node-a node-b; do
        wait_until 20 agent_ready "$node" || die "The agent of $node does not become ready"
    done
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

# namespace_put NAME LABELS: makes a Namespace, or gives it these labels, as JSON; and the account that its
# pods have.
namespace_put() {
    apply_object /api/v1/namespaces "$1" "$(jq -n --arg name "$1" --argjson labels "$2" \
        '{apiVersion: "v1", kind: "Namespace", metadata: {name: $name, labels: $labels}}')"
    apply_object "/api/v1/namespaces/$1/serviceaccounts" default \
        '{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}'
}

# apply_object PATH NAME JSON: makes an object, or changes it to that.
apply_object() {
    kube_curl --request PATCH --header 'Content-Type: application/apply-patch+yaml' --data-binary @- \
        --output /dev/null "$(kube_url)$1/$2?fieldManager=vswitch-test&force=true" <<<"$3"
}

# pod_put NODE NAMESPACE NAME LABELS [PORTS]: makes a Pod that the scheduler has given to the node.
pod_put() {
    jq -n --arg node "$1" --arg name "$3" --argjson labels "$4" --argjson ports "${5:-[]}" '{
            metadata: {name: $name, labels: $labels},
            spec: {nodeName: $node, automountServiceAccountToken: false,
                containers: [{name: "main", image: "none", ports: $ports}]}}' |
        kube_api POST "/api/v1/namespaces/$2/pods" - >/dev/null
}

# pod_start NODE NAMESPACE NAME: does with a Pod what its kubelet does. In the lab it is NAMESPACE-NAME.
pod_start() {
    local pod=$2-$3 uid
    uid=$(kube_api GET "/api/v1/namespaces/$2/pods/$3" | jq -er .metadata.uid)
    POD_NAMESPACE=$2 POD_NAME=$3 POD_UID=$uid pod_plug "$1" "$pod"
    jq -n --arg v4 "$(address "$pod" 4)" --arg v6 "$(address "$pod" 6)" \
        '{status: {phase: "Running", podIP: $v4, podIPs: [{ip: $v4}, {ip: $v6}]}}' |
        kube_api PATCH "/api/v1/namespaces/$2/pods/$3/status" - >/dev/null
}

# pod_stop NODE NAMESPACE NAME: the Pod is deleted and its sandbox gone.
pod_stop() {
    kube_api DELETE "/api/v1/namespaces/$2/pods/$3" - <<<'{"gracePeriodSeconds": 0}' >/dev/null
    pod_unplug "$1" "$2-$3"
}

# is_node NAME FILTER: jq says so of the object.
is_node() { kube_api GET "/api/v1/nodes/$1" | jq -e "$2" >/dev/null; }

# annotate NAME JSON: adds these annotations; null removes one.
annotate() { node_patch "$1" "{\"metadata\": {\"annotations\": $2}}"; }

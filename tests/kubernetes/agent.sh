#!/bin/bash
# vswitch-agent between a real API server and two nodes: what the cluster's Nodes say becomes peers
# and pod prefixes, what the nodes are is published, and what contradicts itself is kept out and told.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all_kubernetes.sh
. "$root/scripts/lib/all_kubernetes.sh"
# shellcheck source=scripts/lib/agent.sh
. "$root/scripts/lib/agent.sh"

main() {
    "$root/scripts/kubernetes-server" build
    setup_binaries_and_agent
    lab_trap
    lab_create
    agent_cluster_up
    manifests
    first_nodes
    lost_interface
    rights
    joining_and_leaving
    conflicts
    hostile
    flannel
    many
    report_end
}

manifests() {
    heading "The manifests"
    local file
    for file in "$root"/config/kubernetes/base/[!k]*.yaml; do
        check "$(basename "$file") is taken" kube_apply "$file"
    done
    check "its vswitch.toml is valid on a node" shipped_configuration
    check "its conflist is the one that is shipped" same_conflist
    if ! command -v kubectl >/dev/null; then
        skip "the overlay for systemd" "kubectl, which knows kustomize, is not here"
        return 0
    fi
    check "the base can be built" kubectl kustomize "$root/config/kubernetes/base"
    kubectl kustomize "$root/config/kubernetes/systemd" >"$LAB_DIR/systemd.yaml"
    check "the overlay for systemd is taken" kube_apply "$LAB_DIR/systemd.yaml"
    check "in it vswitchd is systemd's" runs 'agent'
    check "in the base it is the pod's" base_runs 'vswitchd agent adjuster'
}

# shipped KEY: of the ConfigMap.
shipped() {
    kube_api GET /api/v1/namespaces/vswitch-system/configmaps/vswitch |
        jq -r --arg key "$1" '.data[$key]'
}

shipped_configuration() {
    shipped vswitch.toml | sed 's/NODE_NAME/node-a/' >"$LAB_DIR/shipped.toml"
    in_ns node-a "$bin/vswitchd" --check --config "$LAB_DIR/shipped.toml"
}

same_conflist() {
    shipped 10-vswitch.conflist |
        jq -e --slurpfile ours "$root/config/10-vswitch.conflist" '. == $ours[0]'
}

runs() { containers "$LAB_DIR/systemd.yaml" "$1"; }

base_runs() {
    kubectl kustomize "$root/config/kubernetes/base" >"$LAB_DIR/base.yaml"
    containers "$LAB_DIR/base.yaml" "$1"
}

# containers FILE NAMES: the server reads the manifest as we mean it.
containers() {
    kube_apply "$1"
    [[ $(kube_api GET /apis/apps/v1/namespaces/vswitch-system/daemonsets/vswitch |
        jq -r '[.spec.template.spec.containers[].name] | sort | reverse | join(" ")') == "$2" ]]
}

first_nodes() {
    heading "Two nodes"
    local node
    agent_start node-a
    agent_start node-b
    check "an agent without its Node is not ready" not_ready node-a
    check "nor does it tell the runtime" test ! -e "$(node_dir node-a)/net.d/10-vswitch.conflist"
    node_of_cluster node-a
    node_of_cluster node-b
    for node in node-a node-b; do
        check "$node: the agent is ready" wait_until 20 agent_ready "$node"
        check "$node: its pods have the podCIDRs" pod_prefixes "$node" \
            "[\"${POD_PREFIX4[$node]}\", \"${POD_PREFIX6[$node]}\"]"
        check "$node: the runtime is told last" cmp "$root/config/10-vswitch.conflist" \
            "$(node_dir "$node")/net.d/10-vswitch.conflist"
        check "$node: its Node says where its tunnels end" wait_until 10 is_node "$node" \
            ".metadata.annotations[\"vswitch.dev/underlay-address\"] == \"${HOST_ADDRESS[$node]}\""
        check "$node: and with which MAC" is_node "$node" \
            ".metadata.annotations[\"vswitch.dev/vtep-mac\"] == \"$(vtep_mac "$node")\""
        check "$node: and that its network is there" is_node "$node" \
            '.status.conditions | any(.type == "NetworkUnavailable" and .status == "False" and .reason == "VswitchIsUp")'
        check "$node: and what the kubelet said of it" is_node "$node" \
            '.status.conditions | any(.type == "Ready")'
    done
    check "each is the other's peer" wait_until 10 peer node-a node-b true
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1
    check "pods of both reach each other" wait_until 10 pings a1 "$(address b1 4)"
    check "by TCP over IPv4" talks a1 b1 4
    check "by TCP over IPv6" talks b1 a1 6
}

lost_interface() {
    heading "A pod loses its interface"
    kube_apply <(printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: demo\n')
    pod_plug node-a a2
    pod_plug node-a a3
    check "until then its Node says that all is well" wait_until 20 degraded node-a False PodNetworkIsWell
    in_ip a2 link delete eth0
    check "its Node names it" wait_until 20 degraded node-a True PodInterfaceLost 'demo/a2'
    check "and has its network still" is_node node-a \
        '.status.conditions | any(.type == "NetworkUnavailable" and .status == "False")'
    check "an Event on the Node names it" wait_until 10 lost_events default Node node-a demo/a2 1
    check "an Event is the pod's, by its UID" wait_until 10 lost_events demo Pod a2 eth0 1
    check "and in it the UID is the runtime's" event_uid demo a2 uid-of-a2
    check "the agent's log has it" wait_until 5 grep -q 'pod demo/a2 lost its interface' \
        "$LAB_DIR/logs/agent-node-a.log"
    in_ip a3 link delete eth0
    check "a second one is named beside it" wait_until 20 degraded node-a True PodInterfaceLost 'demo/a2, demo/a3'
    lab_signal agent-node-a KILL
    agent_start node-a
    check "an agent that starts meanwhile is ready" wait_until 20 agent_ready node-a
    check "and has read that they are lost" wait_until 20 logs_again node-a 'pod demo/a2 lost its interface'
    check "yet each loss has one Event on the Node" wait_until 10 lost_events default Node node-a '' 2
    check "and one on its pod" lost_events demo Pod a2 '' 1
    pod_unplug node-a a2
    check "one is deleted: the other is named alone" wait_until 20 degraded node-a True PodInterfaceLost ': demo/a3$'
    cni node-a DEL a3 >/dev/null
    cni node-a ADD a3 >/dev/null
    check "deleted and added anew, all is well" wait_until 20 degraded node-a False PodNetworkIsWell
    lab_stop vswitchd-node-a
    check "of a node without vswitchd it is not known" wait_until 30 degraded node-a Unknown VswitchdIsDown
    node_start node-a
    node_adjust node-a
    check "until that is back" wait_until 30 degraded node-a False PodNetworkIsWell
    pod_unplug node-a a3
    wait_until 20 agent_ready node-a
}

# degraded NODE STATUS REASON [PATTERN]: the condition is so, and its message has the pattern.
degraded() {
    kube_api GET "/api/v1/nodes/$1" |
        jq -e --arg status "$2" --arg reason "$3" --arg pattern "${4:-.}" '.status.conditions | any(
            .type == "PodNetworkDegraded" and .status == $status and .reason == $reason
            and (.message | test($pattern)))'
}

# lost_events NAMESPACE KIND NAME PATTERN COUNT: of that object, with the pattern in the message.
lost_events() {
    kube_api GET "/api/v1/namespaces/$1/events?fieldSelector=involvedObject.kind=$2,involvedObject.name=$3" |
        jq -e --arg pattern "$4" --argjson count "$5" \
            '[.items[] | select(.reason == "PodInterfaceLost" and (.message | test($pattern)))] | length == $count'
}

event_uid() {
    kube_api GET "/api/v1/namespaces/$1/events?fieldSelector=involvedObject.name=$2" |
        jq -e --arg uid "$3" '.items | all(.involvedObject.uid == $uid)'
}

# logs_again NODE TEXT: the log of its agents has it twice.
logs_again() { [[ $(grep -c "$2" "$LAB_DIR/logs/agent-$1.log") == 2 ]]; }

not_ready() { ! agent_ready "$1"; }

pod_prefixes() {
    ctl "$1" --json status | jq -e --argjson wanted "$2" '(.pod_prefixes | sort) == ($wanted | sort)'
}

vtep_mac() { ctl "$1" --json status | jq -er .uplink.vtep_mac; }

# The agents have worked with nothing but these rights; here is what they do not have.
rights() {
    heading "The least rights"
    local token request
    token=$(kube_token vswitch-system vswitch-agent)
    for request in 'PATCH /api/v1/nodes/node-b' 'DELETE /api/v1/nodes/node-b' 'POST /api/v1/nodes' \
        'GET /api/v1/namespaces/default/pods/a' 'DELETE /api/v1/namespaces/default/pods/a' \
        'GET /api/v1/namespaces/vswitch-system/secrets' \
        'GET /api/v1/namespaces/default/events' 'PUT /api/v1/nodes/node-b/status'; do
        # shellcheck disable=SC2086
        check "not: $request" forbidden "$token" $request
    done
    check "the spec is out of reach by nodes/status" spec_stays "$token"
}

# as_agent TOKEN METHOD PATH: prints the code of the answer.
as_agent() {
    kube_in curl -sS --noproxy '*' --max-time 10 --cacert "$KUBE_DIR/pki/ca.crt" -o /dev/null \
        -w '%{http_code}' --header "Authorization: Bearer $1" --request "$2" \
        --header 'Content-Type: application/merge-patch+json' --data "${4:-{\}}" "$(kube_url)$3"
}

forbidden() { [[ $(as_agent "$@") == 403 ]]; }

spec_stays() {
    as_agent "$1" PATCH /api/v1/nodes/node-b/status '{"spec": {"unschedulable": true}}' >/dev/null
    is_node node-b '.spec.unschedulable == null'
}

joining_and_leaving() {
    heading "Nodes join, move and leave"
    node_create node-c 198.18.7.0/24 203.0.113.70
    check "one joins" wait_until 10 peer node-a node-c '.address == "203.0.113.70"'
    check "on every node" wait_until 10 peer node-b node-c true
    node_readdress node-c 203.0.113.71
    check "it moves" wait_until 10 peer node-a node-c '.address == "203.0.113.71"'
    node_delete node-c
    check "it leaves" wait_until 10 no_peer node-a node-c
    node_create node-c 198.18.8.0/24,fd00:18:8::/64 203.0.113.71
    check "it is back with other podCIDRs" wait_until 10 peer node-a node-c \
        '.prefixes == ["198.18.8.0/24", "fd00:18:8::/64"]'
    node_create young '' 203.0.113.72
    check "one without podCIDR is waited for" wait_until 10 pending node-a 1
    node_patch young '{"spec": {"podCIDR": "198.18.9.0/24", "podCIDRs": ["198.18.9.0/24"]}}'
    check "and is a peer once it has one" wait_until 10 peer node-a young true
    node_delete young
    node_delete node-c
    check "both have left" wait_until 10 has_peers node-a 1
}

pending() { agent_state "$1" ".pending == $2"; }

conflicts() {
    heading "Two nodes with the same podCIDR"
    # Of the same second the first name is the older.
    node_create second "${POD_PREFIX4[node-b]}" 203.0.113.80
    check "the younger one is kept out" wait_until 10 refused node-a second 'overlaps'
    check "by every agent" wait_until 10 refused node-b second 'overlaps'
    check "and is no peer" no_peer node-a second
    check "the older one stays" peer node-a node-b true
    check "its pods are reached" pings a1 "$(address b1 4)"
    check "an Event says so, once" wait_until 10 events_of second 1
    node_delete second
    check "when it is gone nothing is left of it" wait_until 10 refused_count node-a 0

    node_create first 198.18.20.0/24 203.0.113.81
    node_create next 198.18.20.0/25 203.0.113.82
    check "one that waits" wait_until 10 refused node-a next 'overlaps'
    node_delete first
    check "gets it when it is free" wait_until 10 peer node-a next '.prefixes == ["198.18.20.0/25"]'
    node_delete next
    node_create twin 198.18.21.0/24 "${HOST_ADDRESS[node-b]}"
    check "nor do two have the same address" wait_until 10 refused node-a twin 'is that of node node-b'
    node_delete twin
    check "all are gone" wait_until 10 has_peers node-a 1
}

# refused NODE NAME TEXT: the agent's state says so.
refused() { agent_state "$1" ".refused[\"$2\"] // \"\"" | finds "$3"; }

refused_count() { agent_state "$1" ".refused_count == $2"; }

# events_of NODE COUNT
events_of() {
    kube_api GET "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=$1" |
        jq -e --argjson count "$2" '[.items[] | select(.reason == "VswitchPeerRefused")] | length == $count'
}

hostile() {
    heading "Nodes that mean ill"
    local epoch
    check "a default route is no podCIDR" refused_with 0.0.0.0/0 203.0.113.90 'is everything'
    check "nor is multicast" refused_with 224.0.0.0/24 203.0.113.90 'multicast'
    check "nor half of all addresses" refused_with 128.0.0.0/1 203.0.113.90 'larger than'
    check "nor what is outside the cluster" refused_with 203.0.113.0/24 198.51.100.90 cluster_prefixes
    check "nor this node's own" refused_with 198.18.1.128/25 203.0.113.90 overlaps
    check "an address in its own podCIDR" refused_with 198.18.22.0/24 198.18.22.1 'through itself'
    check "this node's own address" refused_with 198.18.22.0/24 "${HOST_ADDRESS[node-a]}" 'is that of node'
    check "one of another node's pods" refused_with 198.18.22.0/24 198.18.2.9 'cluster prefix'

    node_create ill 198.18.22.0/24 203.0.113.91
    check "one that was good" wait_until 10 peer node-a ill true
    epoch=$(epoch node-a)
    annotate ill '{"vswitch.dev/underlay-address": "203.0.113.91; reboot"}'
    check "and spoils its address is told of" wait_until 10 refused node-a ill 'is no address'
    annotate ill '{"vswitch.dev/underlay-address": "203.0.113.91", "vswitch.dev/vtep-mac": "ff:ff:ff:ff:ff:ff"}'
    check "or its MAC" wait_until 10 refused node-a ill 'no MAC of a host'
    check "and keeps what it had" peer node-a ill '.address == "203.0.113.91"'
    check "with nothing changed meanwhile" [ "$(epoch node-a)" == "$epoch" ]
    annotate ill '{"vswitch.dev/underlay-address": "203.0.113.92", "vswitch.dev/vtep-mac": null}'
    check "until it is good again" wait_until 10 peer node-a ill '.address == "203.0.113.92"'
    node_delete ill
    check "pods were reached all along" pings a1 "$(address b1 4)"
}

# refused_with PODCIDR ADDRESS TEXT: a Node with these is kept out for that reason.
refused_with() {
    node_create ill "$1" "$2"
    local is=0
    wait_until 10 refused node-a ill "$3" || is=1
    ((is == 0)) || agent_state node-a .refused
    node_delete ill
    return "$is"
}

flannel() {
    heading "Among nodes with flannel"
    local data="{\\\"VNI\\\":$VNI,\\\"VtepMAC\\\":\\\"8a:11:22:33:44:55\\\"}"
    node_create fl 198.18.30.0/24 203.0.113.100
    annotate fl "{\"flannel.alpha.coreos.com/kube-subnet-manager\": \"true\",
        \"flannel.alpha.coreos.com/backend-type\": \"vxlan\",
        \"flannel.alpha.coreos.com/backend-data\": \"$data\",
        \"flannel.alpha.coreos.com/public-ip\": \"203.0.113.101\"}"
    check "its annotations are ours to read" wait_until 10 peer node-a fl \
        '.address == "203.0.113.101" and .vtep_mac == "8a:11:22:33:44:55" and .encapsulation == "vxlan"'
    annotate fl "{\"flannel.alpha.coreos.com/backend-data\": \"${data/:$VNI,/:$((VNI + 1)),}\"}"
    check "another VNI is named" wait_until 10 refused node-a fl 'overlay.vni'
    node_delete fl
    check "without being asked we write none" is_node node-a \
        '.metadata.annotations | has("flannel.alpha.coreos.com/backend-data") | not'
    lab_stop agent-node-a
    agent_start node-a --flannel
    check "with --flannel we write them" wait_until 20 is_node node-a '.metadata.annotations |
        .["flannel.alpha.coreos.com/kube-subnet-manager"] == "true"
        and .["flannel.alpha.coreos.com/backend-type"] == "vxlan"
        and .["flannel.alpha.coreos.com/public-ip"] == "'"${HOST_ADDRESS[node-a]}"'"'
    check "as flannel parses them" is_node node-a \
        '.metadata.annotations["flannel.alpha.coreos.com/backend-data"] | fromjson
        | .VNI == '"$VNI"' and .VtepMAC == "'"$(vtep_mac node-a)"'"'
}

many() {
    heading "500 nodes at once"
    local before
    before=$(agent_state node-a .sync_messages)
    check "they join" nodes_create_many 500
    check "all are peers" wait_until 30 has_peers node-a 501
    check "of both nodes" wait_until 30 has_peers node-b 501
    check "told in few messages: $(($(agent_state node-a .sync_messages) - before))" \
        few_messages "$before" 30
    check "pods are reached" pings a1 "$(address b1 4)"
    nodes_delete_many
    check "they leave" wait_until 30 has_peers node-a 1
    check "pods are reached" pings a1 "$(address b1 4)"
}

few_messages() { (($(agent_state node-a .sync_messages) - $1 <= $2)); }

main "$@"

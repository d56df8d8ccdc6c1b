#!/bin/bash
# The DaemonSet in a cluster of two nodes, each a machine of its own with Debian's containerd, a kubelet and
# kube-proxy: pods that kubelets start talk to each other while `kubectl rollout restart` replaces the pods of the
# DaemonSet under them, and while they are deleted at once.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all_kubernetes.sh
. "$root/scripts/lib/all_kubernetes.sh"
# shellcheck source=scripts/lib/runtime_node.sh
. "$root/scripts/lib/runtime_node.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$root/scripts/lib/cluster.sh"

# A server that is a container has the file so many times over under this name.
readonly SLOW_PATH=blobs

main() {
    local lacks
    lacks=$(runtime_node_lacks)
    if [[ -n $lacks ]]; then
        skip "a cluster with kubelets" "its nodes need $lacks"
        report_end
        return
    fi
    "$root/scripts/kubernetes-server" build
    setup_packages containerd kubelet
    setup_binaries_and_agent
    lab_trap
    lab_create
    served_image >/dev/null
    cluster_images+=(served)
    cluster_up
    cluster_installs_vswitch
    pods_start
    rollout_under_transfers
    deleted_at_once
    report_end
}

pods_start() {
    heading "Pods"
    kubectl_ create namespace demo >/dev/null
    check "two pods on each node" kubectl_ apply -f - <<YAML
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: server
  namespace: demo
spec:
  selector:
    matchLabels: {app: server}
  template:
    metadata:
      labels: {app: server}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: server
        image: localhost/served:1
        readinessProbe:
          httpGet: {path: /blob, port: $SERVER_PORT}
          periodSeconds: 1
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: client
  namespace: demo
spec:
  selector:
    matchLabels: {app: client}
  template:
    metadata:
      labels: {app: client}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: client
        image: localhost/served:1
        command: [sleep, "36000"]
YAML
    check "they run" kubectl_ -n demo rollout status --timeout 60s daemonset/server
    check "and the clients" kubectl_ -n demo rollout status --timeout 60s daemonset/client
    pod_names
    check "their addresses are of their nodes' podCIDRs" addresses_fit
    check "a client fetches a file from the other node" container_fetches client-node-a "$(address server-node-b 4)"
    check "and from its own" container_fetches client-node-a "$(address server-node-a 4)"
    pods_before=$(pods_of_demo)
}

# pod_names: writes down the pods' names and addresses, as APP-NODE.
pod_names() {
    local app node name address
    mkdir -p "$LAB_DIR/kube-pods"
    while read -r app node name address; do
        printf '%s' "$name" >"$LAB_DIR/kube-pods/$app-$node"
        printf '%s' "$address" >"$LAB_DIR/addresses/$app-$node.4"
    done < <(kube_api GET /api/v1/namespaces/demo/pods | jq -r \
        '.items[] | "\(.metadata.labels.app) \(.spec.nodeName) \(.metadata.name) \(.status.podIP)"')
}

addresses_fit() {
    kube_api GET /api/v1/nodes | jq -r '.items[] | "\(.metadata.name) \(.spec.podCIDR)"' |
        while read -r node cidr; do
            [[ $(address "server-$node" 4) == "${cidr%.*}".* ]] || return 1
        done
}

in_container() { kubectl_ -n demo exec "$(cat "$LAB_DIR/kube-pods/$1")" -- "${@:2}"; }

# Pods with their UIDs, addresses, and how often a container of theirs was started again.
pods_of_demo() {
    kube_api GET /api/v1/namespaces/demo/pods | jq -c '[.items[] |
        [.metadata.name, .metadata.uid, .status.podIP, .status.containerStatuses[0].restartCount]] | sort'
}

rollout_under_transfers() {
    heading "kubectl rollout restart"
    daemonset_replaced kubectl_ -n vswitch-system rollout restart daemonset/vswitch
}

deleted_at_once() {
    heading "The DaemonSet's pods are deleted, without grace"
    daemonset_replaced kubectl_ -n vswitch-system delete pods --all --grace-period 0 --force
}

# daemonset_replaced COMMAND…: replaces the pods of the DaemonSet on both nodes.
daemonset_replaced() {
    local before
    before=$(pods_of_vswitch)
    transfer_begin client-node-a "$(address server-node-b 4)"
    check "its pods are replaced" "$@"
    check "all of them" wait_until 60 all_others "$before"
    check "kubectl rollout status" kubectl_ -n vswitch-system rollout status --timeout 120s daemonset/vswitch
    check "a transfer between the nodes goes on" transfer_goes_on client-node-a
    check "and ends, whole" transfer_ends client-node-a
    check "pods are the same, and none was started again" same_pods
    check "a client fetches a file from the other node" container_fetches client-node-b "$(address server-node-a 4)"
    check "and from its own" container_fetches client-node-b "$(address server-node-b 4)"
    check "both nodes are ready" both_ready
}

same_pods() {
    local now
    now=$(pods_of_demo)
    [[ $now == "$pods_before" ]] || { printf '%s\nbecame\n%s\n' "$pods_before" "$now" && return 1; }
}

pods_of_vswitch() {
    kube_api GET /api/v1/namespaces/vswitch-system/pods |
        jq -c '[.items[] | select(.metadata.deletionTimestamp == null).metadata.uid] | sort'
}

# all_others UIDS: two pods, none of which is one of those.
all_others() {
    pods_of_vswitch | jq -e --argjson before "$1" 'length == 2 and (. - $before | length == 2)'
}

main "$@"

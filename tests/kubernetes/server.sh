#!/bin/bash
# The API server that the other tests here rely on: it keeps nodes, streams their changes, grants what
# RBAC says and no more, comes back with all it knew, forgets what it is told to, and leaves nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all_kubernetes.sh
. "$root/scripts/lib/all_kubernetes.sh"

main() {
    "$root/scripts/kubernetes-server" build
    lab_trap
    lab_create
    lab_add_ns api
    kube_up_in_lab api
    check "the server is ready" kube_api GET /readyz
    check "scripts/kubernetes-server reaches it" \
        matches '.major == "1"' "$root/scripts/kubernetes-server" api "$KUBE_DIR" GET /version
    nodes
    rights
    many
    restart
    expiry
    removed
    report_end
}

# matches FILTER COMMAND…: what the command prints is JSON of which jq says so.
matches() {
    local filter=$1
    shift
    "$@" | jq -es ".[0] | $filter" >/dev/null
}

# refused CODE COMMAND…: the server's answer is that error.
refused() {
    local code=$1 answer
    shift
    ! answer=$("$@") && jq -e --argjson code "$code" '.code == $code' <<<"$answer" >/dev/null
}

nodes() {
    local version
    version=$(nodes_version)
    watch_from "$version" first
    check "a node joins" node_create node-a 198.18.1.0/24,fd00:18:1::/64 198.51.100.11
    check "with both its prefixes" is_node node-a '.spec.podCIDRs == ["198.18.1.0/24", "fd00:18:1::/64"]'
    check "and its address" is_node node-a '.status.addresses[0] == {type: "InternalIP", address: "198.51.100.11"}'
    check "it is annotated" node_patch node-a '{"metadata": {"annotations": {"vswitch.test/mode": "vxlan"}}}'
    check "it moves to another address" node_readdress node-a 198.51.100.12
    check "which stands there" is_node node-a '.status.addresses[0].address == "198.51.100.12"'
    check "its prefix stays for its life" refused 422 \
        kube_api PATCH /api/v1/nodes/node-a - <<<'{"spec": {"podCIDR": "198.18.9.0/24", "podCIDRs": null}}'
    check "a prefix that is none is refused" refused 422 \
        kube_api POST /api/v1/nodes - <<<'{"metadata": {"name": "node-x"}, "spec": {"podCIDR": "198.18.9.0/33"}}'
    check "it leaves" node_delete node-a
    check "the watch told all of it, in order" wait_until 10 told first \
        'ADDED MODIFIED MODIFIED DELETED'
}

nodes_version() { kube_api GET /api/v1/nodes | jq -er .metadata.resourceVersion; }

is_node() { matches "$2" kube_api GET "/api/v1/nodes/$1"; }

# watch_from RESOURCE_VERSION NAME: in the background, into watch-NAME.
watch_from() { kube_watch nodes "$1" >"$LAB_DIR/watch-$2" 2>/dev/null & }

# told NAME TYPES: the types of the events that a watch has shown.
told() { [[ $(jq -rs '[.[].type] | join(" ")' "$LAB_DIR/watch-$1") == "$2" ]]; }

rights() {
    local token
    check "a service account gets a kubeconfig" service_account
    token=$(kube_token vswitch-test agent)
    check "at first it may not even list nodes" refused 403 as "$token" GET /api/v1/nodes
    check "a manifest grants that" kube_apply "$LAB_DIR/rights.yaml"
    check "then it may" wait_until 10 as "$token" GET /api/v1/nodes
    check "but not delete them" refused 403 as "$token" DELETE /api/v1/nodes/node-a
    check "a token that was not issued is refused" refused 401 as nonsense GET /api/v1/nodes
    check "a user has a certificate and no rights" user_is_refused
}

service_account() {
    cat >"$LAB_DIR/rights.yaml" <<'YAML'
# The least rights.
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: reads-nodes
rules:
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: agent-reads-nodes
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: reads-nodes
subjects:
- kind: ServiceAccount
  name: agent
  namespace: vswitch-test
YAML
    kube_service_account vswitch-test agent | finds '^    token: .'
}

# as TOKEN METHOD PATH: by its bearer.
as() {
    kube_in curl -sS --fail-with-body --noproxy '*' --max-time 10 --cacert "$KUBE_DIR/pki/ca.crt" \
        --header "Authorization: Bearer $1" --request "$2" "$(kube_url)$3"
}

user_is_refused() {
    local pki=$KUBE_DIR/pki
    kube_user somebody | finds '^    client-certificate-data: .' || return 1
    refused 403 kube_in curl -sS --fail-with-body --noproxy '*' --max-time 10 \
        --cacert "$pki/ca.crt" --cert "$pki/user-somebody.crt" --key "$pki/user-somebody.key" \
        "$(kube_url)/api/v1/nodes"
}

many() {
    check "500 nodes join at once" nodes_create_many 500
    check "all are listed" has_nodes 500
    check "no two have the same address or prefix" matches \
        '[.items[] | .status.addresses[0].address, .spec.podCIDR] | length == 1000 and (unique | length) == 1000' \
        kube_api GET /api/v1/nodes
    check "they leave" nodes_delete_many
    check "none is listed" has_nodes 0
}

has_nodes() { [[ $(nodes_count) == "$1" ]]; }

restart() {
    node_create node-a 198.18.1.0/24 198.51.100.11
    watch_from "$(nodes_version)" broken
    local watch=$!
    check "kube-apiserver stops" kube_stop_api
    check "the watch has ended" wait_until 5 gone "$watch"
    check "nobody answers" unanswered
    step "Starting kube-apiserver again"
    check "it starts again" kube_start_api
    check "and knows its nodes" has_nodes 1
    check "and the rights" as "$(kube_token vswitch-test agent)" GET /api/v1/nodes
}

unanswered() { ! kube_api GET /version; }

expiry() {
    local old
    old=$(nodes_version)
    node_create node-b 198.18.2.0/24 203.0.113.12
    watch_from "$old" resumed
    check "a watch can go on from an old version" wait_until 10 told resumed ADDED
    step "Compacting etcd and starting kube-apiserver again"
    check "etcd forgets" kube_compact
    watch_from "$old" expired
    check "then it cannot: 410" wait_until 10 is_expired
    watch_from "$(nodes_version)" fresh
    node_delete node-b
    check "but from a new one" wait_until 10 told fresh DELETED
}

is_expired() { jq -se '.[0] | .type == "ERROR" and .object.code == 410' "$LAB_DIR/watch-expired"; }

removed() {
    local server etcd directory=$LAB_DIR
    server=$(lab_pid api-server)
    etcd=$(lab_pid etcd)
    ((failed == 0)) || lab_keep_logs
    lab_down
    check "kube-apiserver is gone" wait_until 5 gone "$server"
    check "etcd is gone" wait_until 5 gone "$etcd"
    check "and all that they kept" test ! -e "$directory"
}

main "$@"

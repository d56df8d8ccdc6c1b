#!/bin/bash
# Policies of a real API server, by vswitch-agent, between real pods on two nodes: a part of the table of cases
# that the translation is judged by, live connections, named ports and ranges, policies of the whole
# cluster that come and go, and that nothing opens or closes because somebody is gone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all_kubernetes.sh
. "$root/scripts/lib/all_kubernetes.sh"
# shellcheck source=scripts/lib/agent.sh
. "$root/scripts/lib/agent.sh"

readonly CASES=$root/tests/kubernetes/policy_cases.json
readonly PEER=$root/tests/kubernetes/policy_peer.py
readonly POLICIES=/apis/networking.k8s.io/v1
NODE_TOML=$'[kubernetes]\npolicies = true'
AGENT_POLICIES=true

main() {
    "$root/scripts/kubernetes-server" build
    setup_binaries_and_agent
    lab_trap
    lab_create
    agent_cluster_up
    agents_up
    pods
    subjects
    table
    blocks
    dns
    live_connection
    cluster_policies
    server_is_gone
    agent_is_gone
    recreated
    waiting
    left_out
    one_namespace
    without_the_right
    report_end
}

node_of() { [[ -f $(node_dir node-a)/pods/$1.json ]] && echo node-a || echo node-b; }

# The nine pods of the table, on either node in turns.
pods() {
    heading "Pods on two nodes"
    local name labels pod ports index=0 nodes=(node-a node-b)
    while read -r name labels; do namespace_put "$name" "$labels"; done \
        < <(jq -r '.namespaces[] | "\(.name) \(.labels | tojson)"' "$CASES")
    while read -r pod labels ports; do
        pod_put "${nodes[index % 2]}" "${pod%/*}" "${pod#*/}" "$labels" "$ports"
        pod_start "${nodes[index % 2]}" "${pod%/*}" "${pod#*/}"
        peer_up "${pod/\//-}"
        index=$((index + 1))
    done < <(jq -r '.pods[] | "\(.pod) \(.labels | tojson) \(.ports | tojson)"' "$CASES")
    check "they have the addresses that the table has" has_addresses
}

# peer_up POD: it serves, and can be asked to try others.
peer_up() {
    lab_spawn "peer-$1" "$1" /usr/bin/python3 "$PEER" "$LAB_DIR/$1.sock" 80 81 5353 8080
    wait_until 10 test -S "$LAB_DIR/$1.sock" || die "The peer in $1 does not come up"
}

has_addresses() {
    local pod wanted
    while read -r pod wanted; do
        [[ $(address "$pod" 4) == "$wanted" ]] || { echo "$pod has $(address "$pod" 4)" && return 1; }
    done < <(jq -r '.pods[] | "\(.pod | sub("/"; "-")) \(.address)"' "$CASES")
}

subjects() {
    heading "Without policies"
    local node
    for node in node-a node-b; do
        check "$node knows the policies of each of its pods, of which there are none" wait_until 10 all_open "$node"
    done
    check "the agent's state counts them" wait_until 10 agent_state node-a '.policies == 0'
    check "a pod reaches another" wait_until 5 reaches_port x-a y-c TCP 80
}

# all_open NODE: no pod there is isolated, or closed for want of its policies.
all_open() {
    ctl "$1" --json show policies |
        jq -e '.summary.enforced and .summary.subjects >= 4
            and all(.pods[]; .ingress.isolation == "open" and .egress.isolation == "open")' >/dev/null
}

# reaches_port FROM TO PROTOCOL PORT [FAMILY]
reaches_port() { try_port "$1" "$(address "$2" "${5:-4}")" "$3" "$4"; }

denies_port() { ! reaches_port "$@"; }

# try_port POD ADDRESS PROTOCOL PORT
try_port() {
    /usr/bin/python3 - "$LAB_DIR/$1.sock" "$2" "$3" "$4" <<'PYTHON'
import json, socket, sys
path, address, protocol, port = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(path)
    peer.sendall(json.dumps([[address, protocol, int(port)]]).encode() + b"\n")
    sys.exit(peer.makefile().readline() != "1\n")
PYTHON
}

table() {
    heading "Cases of the table"
    local number name
    while read -r number name; do
        check "$(cut -c 1-100 <<<"$name")" case_holds "$number"
    done < <(/usr/bin/python3 "$root/tests/kubernetes/policy_cases.py" list "$CASES")
    no_policies
}

case_holds() {
    kube_in /usr/bin/python3 "$root/tests/kubernetes/policy_cases.py" \
        "$CASES" "$(kube_url)" "$KUBE_DIR/pki" "$LAB_DIR" "$1"
}

# Everything as it was at first.
no_policies() {
    local name labels
    while read -r name; do
        kube_api DELETE "$POLICIES/namespaces/${name%/*}/networkpolicies/${name#*/}" >/dev/null
    done < <(kube_api GET "$POLICIES/networkpolicies" | jq -r '.items[].metadata | "\(.namespace)/\(.name)"')
    while read -r name labels; do namespace_put "$name" "$labels"; done \
        < <(jq -r '.namespaces[] | "\(.name) \(.labels | tojson)"' "$CASES")
    while read -r name labels; do
        kube_api PATCH "/api/v1/namespaces/${name%/*}/pods/${name#*/}" - \
            <<<"{\"metadata\": {\"labels\": $labels}}" >/dev/null
    done < <(jq -r '.pods[] | "\(.pod) \(.labels | tojson)"' "$CASES")
    wait_until 10 all_open node-a && wait_until 10 all_open node-b
}

# policy_put NAME SPEC: a NetworkPolicy in the namespace x.
policy_put() {
    apply_object "$POLICIES/namespaces/x/networkpolicies" "$1" \
        "$(jq -n --arg name "$1" --argjson spec "$2" \
            '{apiVersion: "networking.k8s.io/v1", kind: "NetworkPolicy", metadata: {name: $name}, spec: $spec}')"
}

policy_delete() { kube_api DELETE "$POLICIES/namespaces/x/networkpolicies/$1" >/dev/null; }

pod_label() {
    kube_api PATCH "/api/v1/namespaces/$1/pods/$2" - <<<"{\"metadata\": {\"labels\": $3}}" >/dev/null
}

blocks() {
    heading "Blocks of addresses"
    policy_put block "{\"podSelector\": {\"matchLabels\": {\"pod\": \"a\"}}, \"ingress\": [
        {\"from\": [{\"ipBlock\": {\"cidr\": \"${POD_PREFIX4[node-b]}\", \"except\": [\"$(address x-b 4)/32\"]}}]}]}"
    check "a pod of the other node's prefix is allowed" wait_until 10 reaches_port y-a x-a TCP 80
    check "one outside of it is not" wait_until 10 denies_port y-b x-a TCP 80
    check "nor is the exception" denies_port x-b x-a TCP 80
    check "nor is the other family" denies_port y-a x-a TCP 80 6
    check "the own node is, for its probes" in_ns node-a curl -sS --noproxy '*' --max-time 5 --http0.9 \
        --output /dev/null "http://$(address x-a 4):80/"
    policy_delete block
    check "without the policy all are" wait_until 10 reaches_port y-b x-a TCP 80
}

dns() {
    heading "A Service of UDP, as DNS is one, with policies on"
    local address
    apply_object /api/v1/namespaces/z/services dns '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"},
        "spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}}'
    apply_object /apis/discovery.k8s.io/v1beta1/namespaces/z/endpointslices dns-1 "{
        \"apiVersion\": \"discovery.k8s.io/v1beta1\", \"kind\": \"EndpointSlice\", \"addressType\": \"IPv4\",
        \"metadata\": {\"name\": \"dns-1\", \"labels\": {\"kubernetes.io/service-name\": \"dns\"}},
        \"ports\": [{\"name\": \"dns\", \"port\": 5353, \"protocol\": \"UDP\"}],
        \"endpoints\": [{\"addresses\": [\"$(address z-b 4)\"]}, {\"addresses\": [\"$(address z-c 4)\"]}]}"
    address=$(kube_api GET /api/v1/namespaces/z/services/dns | jq -er .spec.clusterIP)
    check "without policies it answers" wait_until 10 try_port x-a "$address" UDP 53
    policy_put deny '{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}'
    check "nothing leaves, nothing enters" wait_until 10 denies x-a "$address" UDP 53
    policy_put dns '{"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}], "ports": [{"port": 5353, "protocol": "UDP"}]}]}'
    check "by a rule for its backends' port it answers" wait_until 10 try_port x-a "$address" UDP 53
    check "to pods of the other node too" wait_until 10 try_port x-b "$address" UDP 53
    check "nothing else leaves" denies_port x-a z-b TCP 80
    policy_put dns '{"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}], "ports": [{"port": 53, "protocol": "UDP"}]}]}'
    check "its own port is no backend's" wait_until 10 denies x-a "$address" UDP 53
    policy_delete dns
    policy_delete deny
    wait_until 10 all_open node-a
}

denies() { ! try_port "$@"; }

live_connection() {
    heading "A live connection"
    policy_put to-a '{"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}]}'
    pod_label x b '{"role": "client"}'
    lab_spawn held-server x-a /usr/bin/python3 "$root/tests/lab/held_connection.py" serve 7000
    wait_until 10 listens x-a 7000
    check "another pod is denied" wait_until 10 denies_port x-c x-a TCP 80
    check "a client is allowed" wait_until 10 reaches_port x-b x-a TCP 80
    lab_spawn held-client x-b /usr/bin/python3 "$root/tests/lab/held_connection.py" \
        hold "$(address x-a 4)" 7000 3
    wait_until 5 established x-b 7000
    pod_label x c '{"role": "client"}'
    check "a second client is allowed" wait_until 10 reaches_port x-c x-a UDP 81
    check "and the first one's connection lives" lab_pid held-client
    pod_label x b '{"role": null}'
    check "the first is a client no more: its connection is cut" wait_until 15 lab_gone held-client
    check "and so is its next" wait_until 10 denies_port x-b x-a TCP 80
    check "while the second's are allowed" reaches_port x-c x-a TCP 80
    check "over IPv6 too" wait_until 10 reaches_port x-c x-a TCP 80 6
    check "where the first is denied" denies_port x-b x-a TCP 80 6
    lab_stop held-server
    policy_delete to-a
    pod_label x c '{"role": null}'
    check "without the policy it is allowed again" wait_until 10 reaches_port x-b x-a TCP 80
}

established() { [[ -n $(in_ns "$1" ss -Htn "dport = :$2") ]]; }

# cluster_kind NAME PLURAL VERSION: a custom resource as far as this test needs its schema.
cluster_kind() {
    apply_object /apis/apiextensions.k8s.io/v1/customresourcedefinitions "$2.policy.networking.k8s.io" \
        "$(jq -n --arg kind "$1" --arg plural "$2" --arg version "$3" '{
            apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
            metadata: {name: "\($plural).policy.networking.k8s.io",
                annotations: {"api-approved.kubernetes.io": "unapproved, for a test"}},
            spec: {group: "policy.networking.k8s.io", scope: "Cluster",
                names: {kind: $kind, plural: $plural, singular: ($kind | ascii_downcase)},
                versions: [{name: $version, served: true, storage: true,
                    schema: {openAPIV3Schema: {type: "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}')"
}

# cluster_policy KIND PLURAL VERSION NAME SPEC
cluster_policy() {
    apply_object "/apis/policy.networking.k8s.io/$3/$2" "$4" \
        "$(jq -n --arg kind "$1" --arg version "policy.networking.k8s.io/$3" --arg name "$4" --argjson spec "$5" \
            '{apiVersion: $version, kind: $kind, metadata: {name: $name}, spec: $spec}')"
}

cluster_policies() {
    heading "Policies of the whole cluster, whose kinds come later"
    local messages before
    before=$(grep -c . "$LAB_DIR/logs/agent-node-a.log")
    check "that they are not there is no word in the log" not_logged node-a 'NetworkPolicies cannot be watched'
    cluster_kind ClusterNetworkPolicy clusternetworkpolicies v1alpha2
    cluster_kind AdminNetworkPolicy adminnetworkpolicies v1alpha1
    cluster_kind BaselineAdminNetworkPolicy baselineadminnetworkpolicies v1alpha1
    wait_until 10 kube_api GET /apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies
    cluster_policy ClusterNetworkPolicy clusternetworkpolicies v1alpha2 range '{"tier": "Admin", "priority": 5,
        "subject": {"namespaces": {"matchLabels": {"ns": "x"}}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "y"}}}],
            "protocols": [{"tcp": {"destinationPort": {"range": {"start": 81, "end": 9000}}}}]}]}'
    check "a range of ports is denied" wait_until 60 denies_port y-a x-a TCP 8080
    check "the last port before it is not" reaches_port y-a x-a TCP 80
    check "nor is another protocol" reaches_port y-a x-a UDP 81
    policy_put everything '{"podSelector": {}, "ingress": [{}]}'
    check "a NetworkPolicy does not allow it" wait_until 10 reaches_port z-a x-a TCP 8080
    check "which is of a later tier" denies_port y-a x-a TCP 8080
    policy_delete everything
    cluster_policy AdminNetworkPolicy adminnetworkpolicies v1alpha1 first '{"priority": 1,
        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "a"}}}},
        "ingress": [{"action": "Allow", "from": [{"namespaces": {"matchLabels": {"ns": "y"}}}],
            "ports": [{"namedPort": "serve-81-tcp"}]}]}'
    check "one with a lower priority goes first, by a named port" wait_until 60 reaches_port y-a x-a TCP 81
    check "for its subjects alone" wait_until 60 denies_port y-a x-b TCP 81
    check "and its port alone" denies_port y-a x-a TCP 8080
    cluster_policy BaselineAdminNetworkPolicy baselineadminnetworkpolicies v1alpha1 default '{
        "subject": {"namespaces": {"matchLabels": {"ns": "z"}}},
        "egress": [{"action": "Deny", "to": [{"networks": ["198.18.0.0/15"]}]}]}'
    check "a baseline denies what nothing else decides" wait_until 60 denies_port z-a x-a TCP 80
    kube_api DELETE /apis/apiextensions.k8s.io/v1/customresourcedefinitions/baselineadminnetworkpolicies.policy.networking.k8s.io >/dev/null
    check "its kind goes, and it with it" wait_until 30 reaches_port z-a x-a TCP 80
    kube_api DELETE /apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/range >/dev/null
    check "a policy goes" wait_until 30 reaches_port y-a x-b TCP 8080
    kube_api DELETE /apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies/first >/dev/null
    check "and nothing is left" wait_until 30 all_open node-a
    messages=$(tail -n "+$((before + 1))" "$LAB_DIR/logs/agent-node-a.log" | grep -c 'cannot be watched' || true)
    check "the kind that went is at most one word in the log" test "$messages" -le 1
}

server_is_gone() {
    heading "The API server is away"
    policy_put deny '{"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": "serve-80-tcp"}]}]}'
    check "of a policy the allowed" wait_until 10 reaches_port y-b x-b TCP 80
    check "and the denied" wait_until 10 denies_port z-a x-b TCP 80
    kube_stop_api
    check "the agent sees that it is gone" wait_until 20 agent_state node-b '.api_server == false'
    check "the policy stays" denies_port z-a x-b TCP 80
    lab_stop vswitchd-node-b
    node_start node-b
    node_adjust node-b
    check "a daemon that starts meanwhile allows" wait_until 10 reaches_port y-b x-b TCP 80
    check "and denies" denies_port z-a x-b TCP 80
    check "it has been asked, and nothing was sent" wait_until 10 connected_again node-b
    check "no pod there is closed" no_pod_waits node-b
    kube_start_api
    check "the agent sees that it is back" wait_until 40 agent_state node-b .api_server
    kube_compact
    namespace_put z '{"ns": "y"}'
    check "what comes then is taken" wait_until 60 reaches_port z-a x-b TCP 80
    namespace_put z '{"ns": "z"}'
    check "and what goes" wait_until 10 denies_port z-a x-b TCP 80
}

connected_again() { (($(grep -c 'connected to vswitchd' "$LAB_DIR/logs/agent-$1.log") >= 2)); }

no_pod_waits() {
    ctl "$1" --json show policies |
        jq -e 'all(.pods[]; [.ingress.isolation, .egress.isolation] | index("pending") == null)' >/dev/null
}

agent_is_gone() {
    heading "The agent is killed"
    lab_signal agent-node-b KILL
    agent_start node-b
    check "what did not change is not sent again" wait_until 20 agent_state node-b \
        '.policies == 1 and .policy_messages == 0'
    check "and stays" denies_port z-a x-b TCP 80
    lab_signal agent-node-b KILL
    policy_put deny '{"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}]}]}'
    agent_start node-b
    check "what came meanwhile is taken" wait_until 20 reaches_port z-a x-b TCP 80
    check "and what went" denies_port y-b x-b TCP 80
    check "in one message" wait_until 10 agent_state node-b '.policy_messages == 1'
    lab_stop agent-node-b
    kube_stop_api
    agent_start node-b
    # Long enough to do something wrong.
    wait_until 5 false || true
    check "without an API server nothing is opened" denies_port y-b x-b TCP 80
    check "or closed" reaches_port z-a x-b TCP 80
    kube_start_api
    check "nor when it is back" wait_until 40 agent_state node-b '.policies == 1 and .policy_messages == 0'
}

recreated() {
    heading "A pod of the same name"
    pod_stop node-b x b
    pod_put node-b x b '{"pod": "b"}'
    pod_start node-b x b
    peer_up x-b
    check "is under the policy from its first packet" denies_port y-b x-b TCP 80
    check "and reached as it allows" wait_until 10 reaches_port z-a x-b TCP 80
    pod_stop node-b x b
    pod_put node-b x b '{"pod": "b", "free": "yes"}'
    policy_put deny '{"podSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
        "policyTypes": ["Ingress"]}'
    pod_start node-b x b
    peer_up x-b
    check "with other labels it has other policies" wait_until 10 reaches_port y-b x-b TCP 80
    check "which the others have not" wait_until 10 denies_port y-b x-a TCP 80
    policy_delete deny
    check "and which go" wait_until 10 reaches_port y-b x-a TCP 80
}

waiting() {
    heading "A pod whose policies are not known yet"
    pod_put node-a x late '{"pod": "late"}'
    lab_stop agent-node-a
    pod_delete_object x late
    pod_put node-a x late '{"pod": "late"}'
    pod_start node-a x late
    check "is there and closed" pending node-a x/late
    peer_up x-late
    check "nobody reaches it" denies_port x-b x-late TCP 80
    check "it reaches nobody" denies_port x-late x-b TCP 80
    agent_start node-a
    check "it is open once they are known" wait_until 20 reaches_port x-b x-late TCP 80
    check "for what it sends too" wait_until 10 reaches_port x-late x-b UDP 5353
    pod_stop node-a x late
    heading "A pod whose policies come while it is added"
    kill -STOP "$(lab_pid agent-node-a)"
    pod_put node-a x soon '{"pod": "soon"}'
    { pod_start node-a x soon && { pending node-a x/soon && echo pending || echo known; } >"$LAB_DIR/soon"; } &
    # Its ADD has begun.
    wait_until 5 pending node-a x/soon
    kill -CONT "$(lab_pid agent-node-a)"
    wait $!
    check "its ADD waits for them" test "$(cat "$LAB_DIR/soon")" == known
    peer_up x-soon
    check "and it reaches others from the first packet" reaches_port x-soon y-b TCP 80
    pod_stop node-a x soon
}

pod_delete_object() {
    kube_api DELETE "/api/v1/namespaces/$1/pods/$2" - <<<'{"gracePeriodSeconds": 0}' >/dev/null
}

pending() {
    ctl "$1" --json show policies | jq -e --arg pod "$2" \
        'any(.pods[]; "\(.pod.namespace)/\(.pod.name)" == $pod and .ingress.isolation == "pending")' >/dev/null
}

left_out() {
    heading "What is left out"
    cluster_policy ClusterNetworkPolicy clusternetworkpolicies v1alpha2 odd '{"tier": "Admin", "priority": 9,
        "subject": {"namespaces": {"matchLabels": {"ns": "z"}}},
        "ingress": [{"action": "Accept", "from": [{"somethingNew": {}}]}]}'
    check "a peer of an unknown kind: the agent's state names it" wait_until 60 unenforced \
        'ClusterNetworkPolicy odd' 'rule 0: a peer is of a kind that is not known: it matches nothing'
    check "and one Event on the policy" wait_until 10 events_of_policy odd 1
    check "and the log, once" logged_once 'policy ClusterNetworkPolicy odd is not enforced as it says'
    kube_api DELETE /apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/odd >/dev/null
    check "until it is gone" wait_until 10 agent_state node-a '.unenforced_count == 0'
}

one_namespace() {
    heading "A namespace with a policy that fits into no message"
    # Of 100,000 rules, all of which allow everything.
    jq -n '{metadata: {name: "vast"}, spec: {podSelector: {matchLabels: {pod: "a"}}, ingress: [range(100000) | {}]}}' |
        kube_api POST "$POLICIES/namespaces/x/networkpolicies" - >/dev/null
    check "closes what it selects" wait_until 30 denies_port y-b x-a TCP 80
    check "the agent's state names it" wait_until 20 unenforced 'NetworkPolicy x/vast' \
        'its rules are too large, and what it selects is denied everything'
    check "a pod of its namespace that it does not select takes connections" reaches_port y-b x-c TCP 80
    jq -n '{metadata: {name: "deny"}, spec: {podSelector: {matchLabels: {pod: "b"}}}}' |
        kube_api POST "$POLICIES/namespaces/y/networkpolicies" - >/dev/null
    check "another namespace's policy comes into force" wait_until 10 denies_port x-c y-b TCP 80
    kube_api DELETE "$POLICIES/namespaces/y/networkpolicies/deny" >/dev/null
    check "and goes" wait_until 10 reaches_port x-c y-b TCP 80
    policy_delete vast
    check "without it all is open" wait_until 20 reaches_port y-b x-a TCP 80
    check "and nothing is named" wait_until 10 agent_state node-a '.unenforced_count == 0'
}

unenforced() { agent_state node-a ".unenforced[\"$1\"] // \"\"" | finds -F "$2"; }

events_of_policy() {
    kube_api GET "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=$1" |
        jq -e --argjson count "$2" '[.items[] | select(.reason == "VswitchPolicyRefused")] | length == $count'
}

logged_once() { (($(grep -c "$1" "$LAB_DIR/logs/agent-node-a.log") == 1)); }

without_the_right() {
    heading "Without the right to read policies"
    local role=/apis/rbac.authorization.k8s.io/v1/clusterroles/vswitch-agent
    policy_put deny '{"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"]}'
    wait_until 10 denies_port y-a x-a TCP 80
    lab_stop agent-node-a
    kube_api GET "$role" |
        jq '{rules: [.rules[] | select(.resources | index("networkpolicies") == null)]}' |
        kube_api PATCH "$role" - >/dev/null
    agent_start node-a
    check "the agent names it" wait_until 20 logged node-a ' NetworkPolicies cannot be watched, .*forbidden'
    check "is ready all the same" wait_until 20 agent_ready node-a
    check "and opens nothing" denies_port y-a x-a TCP 80
    kube_apply "$root/config/kubernetes/base/rbac.yaml"
    check "with the right it goes on" wait_until 60 agent_state node-a '.policies == 1'
    policy_delete deny
    check "and a policy goes" wait_until 10 reaches_port y-a x-a TCP 80
}

not_logged() { ! logged "$@"; }

logged() { finds "$2" <"$LAB_DIR/logs/agent-$1.log"; }

main "$@"

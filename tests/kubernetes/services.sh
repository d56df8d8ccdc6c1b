#!/bin/bash
# Services and EndpointSlices of a real API server, by vswitch-agent, in vswitchd of two nodes: what is
# served, what is left to others, what is left out and told, and that nothing is withdrawn because
# somebody is gone.
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
    agents_up
    kube_apply <(printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n')
    served
    endpoints
    addresses
    left_to_others
    left_out
    server_is_gone
    agent_is_gone
    without_the_right
    switched_off
    report_end
}

# service_put NAME JSON: makes a Service in the namespace shop, or changes it to that. A port's protocol is
# part of its key when it is applied, so that it cannot be left out.
service_put() {
    apply_object /api/v1/namespaces/shop/services "$1" \
        "$(jq -n --arg name "$1" --argjson spec "$2" \
            '{apiVersion: "v1", kind: "Service", metadata: {name: $name, namespace: "shop"}, spec: $spec}
            | .spec.ports[]? |= {protocol: "TCP"} + .')"
}

# slice_put NAME SERVICE PORTS ENDPOINTS: likewise an EndpointSlice, of IPv4.
slice_put() {
    local version
    version=$(slice_version)
    apply_object "/apis/$version/namespaces/shop/endpointslices" "$1" \
        "$(jq -n --arg version "$version" --arg name "$1" --arg service "$2" \
            --argjson ports "$3" --argjson endpoints "$4" '{
                apiVersion: $version, kind: "EndpointSlice",
                metadata: {name: $name, namespace: "shop", labels: {"kubernetes.io/service-name": $service}},
                addressType: "IPv4", ports: $ports, endpoints: $endpoints}')"
}

slice_version() {
    kube_api GET /apis/discovery.k8s.io |
        jq -er '[.versions[].groupVersion] | if index("discovery.k8s.io/v1") then "discovery.k8s.io/v1" else .[0] end'
}

service_delete() { kube_api DELETE "/api/v1/namespaces/shop/services/$1" >/dev/null; }

slice_delete() { kube_api DELETE "/apis/$(slice_version)/namespaces/shop/endpointslices/$1" >/dev/null; }

service_patch() { kube_api PATCH "/api/v1/namespaces/shop/services/$1${3:+/$3}" - <<<"$2" >/dev/null; }

# is_served NODE NAME FILTER: jq says so of a service that the daemon has.
is_served() {
    ctl "$1" --json show services |
        jq -e --arg name "$2" "first(.[] | select(.name == \$name)) | $3" >/dev/null
}

not_served() { ! is_served "$1" "$2" true; }

# backends NODE NAME LIST: those for new flows, each as address:port.
backends() {
    is_served "$1" "$2" "[.backends[] | select((.flows // \"all\") == \"all\") | \"\(.address):\(.port)\"]
        | sort | join(\" \") == \"$3\""
}

cluster_ip() { kube_api GET "/api/v1/namespaces/shop/services/$1" | jq -er .spec.clusterIP; }

served() {
    heading "A Service"
    local node
    service_put db '{"ports": [{"name": "sql", "port": 5432}, {"name": "stats", "port": 9000, "protocol": "UDP"}]}'
    slice_put db-1 db '[{"name": "sql", "port": 15432}, {"name": "stats", "port": 19000, "protocol": "UDP"}]' \
        '[{"addresses": ["198.18.1.10"], "conditions": {"ready": true}},
          {"addresses": ["198.18.2.10"], "conditions": {"ready": true}}]'
    for node in node-a node-b; do
        check "$node serves its port" wait_until 10 backends "$node" shop/db:sql '198.18.1.10:15432 198.18.2.10:15432'
        check "$node: and the other one" wait_until 10 is_served "$node" shop/db:stats \
            '.protocol == "UDP" and .port == 9000'
        check "$node: at its ClusterIP" is_served "$node" shop/db:sql ".addresses == [\"$(cluster_ip db)\"]"
    done
    check "the agent's state counts it" wait_until 10 agent_state node-a '.services >= 2'
}

endpoints() {
    heading "Endpoints come and go"
    slice_put db-2 db '[{"name": "sql", "port": 25432}]' \
        '[{"addresses": ["198.18.2.11"], "conditions": {"ready": true}}]'
    check "a second slice, with another port" wait_until 10 backends node-a shop/db:sql \
        '198.18.1.10:15432 198.18.2.10:15432 198.18.2.11:25432'
    slice_put db-1 db '[{"name": "sql", "port": 15432}]' \
        '[{"addresses": ["198.18.1.10"], "conditions": {"ready": true}},
          {"addresses": ["198.18.2.10"], "conditions": {"ready": false}}]'
    check "one that is not ready takes no new flows" wait_until 10 backends node-a shop/db:sql \
        '198.18.1.10:15432 198.18.2.11:25432'
    check "and keeps its connections" is_served node-a shop/db:sql \
        '.backends | any(.address == "198.18.2.10" and .flows == "connections")'
    slice_delete db-2
    check "a slice is deleted" wait_until 10 backends node-a shop/db:sql '198.18.1.10:15432'
    slice_delete db-1
    check "without any the Service stays" wait_until 10 backends node-a shop/db:sql ''
    slice_put db-1 db '[{"name": "sql", "port": 15432}]' \
        '[{"addresses": ["198.18.1.10"], "conditions": {"ready": true}}]'
    check "until there is one again" wait_until 10 backends node-b shop/db:sql '198.18.1.10:15432'
}

addresses() {
    heading "Other addresses"
    service_put web '{"type": "LoadBalancer", "ports": [{"port": 80}], "externalIPs": ["192.0.2.5"],
        "loadBalancerSourceRanges": ["198.18.1.0/24"], "sessionAffinity": "ClientIP"}'
    service_patch web '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}' status
    check "external ones" wait_until 10 is_served node-a shop/web:80 '.addresses | index("192.0.2.5") != null'
    check "a load balancer's, for its sources" wait_until 10 is_served node-a 'shop/web:80 load-balancer' \
        '.addresses == ["192.0.2.9"] and .sources == ["198.18.1.0/24"]'
    check "with an affinity of three hours" is_served node-a shop/web:80 '.affinity_seconds == 10800'
    service_patch web '{"status": {"loadBalancer": {"ingress": []}}}' status
    check "the load balancer's is withdrawn" wait_until 10 not_served node-a 'shop/web:80 load-balancer'
}

left_to_others() {
    heading "Others' Services"
    service_patch web '{"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}}'
    check "another program's is withdrawn" wait_until 10 not_served node-a shop/web:80
    service_patch web '{"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": null}}}'
    check "and is back" wait_until 10 is_served node-a shop/web:80 true
    service_put quiet '{"clusterIP": "None", "ports": [{"port": 80}]}'
    service_put elsewhere '{"type": "ExternalName", "externalName": "example.com"}'
    service_put last '{"ports": [{"port": 80}]}'
    check "the next one is served" wait_until 10 is_served node-a shop/last:80 true
    check "a headless one is not" not_served node-a shop/quiet:80
    check "nor a name" not_served node-a shop/elsewhere:80
    service_delete last
    check "a Service is deleted" wait_until 10 not_served node-a shop/last:80
}

left_out() {
    heading "What is left out"
    local victim
    victim=$(cluster_ip db)
    service_put thief "{\"ports\": [{\"port\": 5432}], \"externalIPs\": [\"$victim\", \"192.0.2.6\"]}"
    check "another Service's ClusterIP" wait_until 10 is_served node-a shop/thief:5432 \
        ".addresses | index(\"$victim\") == null and index(\"192.0.2.6\") != null"
    check "the agent's state names it" wait_until 10 unserved node-a shop/thief 'is the ClusterIP of Service shop/db'
    check "and one Event on the Service" wait_until 10 events_of_service thief 1
    service_delete thief
    check "until it is gone" wait_until 10 all_served node-a
    service_put node "{\"ports\": [{\"port\": 5432}], \"externalIPs\": [\"${HOST_ADDRESS[node-b]}\"]}"
    check "an address of a node" wait_until 10 unserved node-a shop/node "${HOST_ADDRESS[node-b]}"
    service_delete node
    check "until it is gone" wait_until 10 all_served node-a
}

unserved() { agent_state "$1" ".unserved[\"$2\"] // \"\"" | finds "$3"; }

all_served() { agent_state "$1" '.unserved_count == 0'; }

# events_of_service NAME COUNT
events_of_service() {
    kube_api GET "/api/v1/namespaces/shop/events?fieldSelector=involvedObject.name=$1,involvedObject.kind=Service" |
        jq -e --argjson count "$2" '[.items[] | select(.reason == "VswitchServiceRefused")] | length == $count'
}

server_is_gone() {
    heading "The API server restarts, and the watches expire"
    local messages
    messages=$(agent_state node-a .service_messages)
    kube_stop_api
    check "the agent sees that it is gone" wait_until 20 agent_state node-a '.api_server == false'
    check "services stay" backends node-a shop/db:sql '198.18.1.10:15432'
    kube_start_api
    check "and that it is back" wait_until 40 agent_state node-a .api_server
    kube_compact
    slice_put db-1 db '[{"name": "sql", "port": 15432}]' \
        '[{"addresses": ["198.18.1.11"], "conditions": {"ready": true}}]'
    check "what comes then is taken" wait_until 60 backends node-a shop/db:sql '198.18.1.11:15432'
    check "in one message" agent_state node-a ".service_messages == $((messages + 1))"
}

agent_is_gone() {
    heading "The agent is killed"
    lab_signal agent-node-a KILL
    service_put new '{"ports": [{"port": 81}]}'
    service_delete web
    agent_start node-a
    check "what came meanwhile is taken" wait_until 20 is_served node-a shop/new:81 true
    check "and what went is withdrawn" not_served node-a shop/web:80
    check "in one message" wait_until 10 agent_state node-a '.service_messages == 1'
    check "the rest was left alone" backends node-a shop/db:sql '198.18.1.11:15432'
    lab_stop agent-node-a
    kube_stop_api
    agent_start node-a
    # Long enough to do something wrong.
    wait_until 5 false || true
    check "without an API server nothing is withdrawn" backends node-a shop/db:sql '198.18.1.11:15432'
    kube_start_api
    check "nor when it is back" wait_until 40 agent_state node-a '.services != null and .service_messages == 0'
}

without_the_right() {
    heading "Without the right to read Services"
    local role=/apis/rbac.authorization.k8s.io/v1/clusterroles/vswitch-agent
    lab_stop agent-node-a
    kube_api GET "$role" |
        jq '{rules: [.rules[] | select(.resources | inside(["services", "endpointslices"]) | not)]}' |
        kube_api PATCH "$role" - >/dev/null
    agent_start node-a
    check "the agent names it" wait_until 20 logged node-a 'Services cannot be watched, .*forbidden'
    check "is ready all the same" wait_until 20 agent_ready node-a
    check "and withdraws nothing" backends node-a shop/db:sql '198.18.1.11:15432'
    kube_apply "$root/config/kubernetes/base/rbac.yaml"
    check "with the right it goes on" wait_until 60 agent_state node-a '.services != null'
}

logged() { finds "$2" <"$LAB_DIR/logs/agent-$1.log"; }

switched_off() {
    heading "Switched off"
    lab_stop agent-node-a
    agent_start node-a --services=false
    check "all are withdrawn" wait_until 20 no_services node-a
    check "the agent is ready" wait_until 20 agent_ready node-a
    check "the other node serves on" backends node-b shop/db:sql '198.18.1.11:15432'
    lab_stop agent-node-a
    agent_start node-a
    check "switched on they are back" wait_until 20 backends node-a shop/db:sql '198.18.1.11:15432'
}

no_services() { ctl "$1" --json show services | jq -e 'length == 0' >/dev/null; }

main "$@"

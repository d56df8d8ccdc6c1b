#!/bin/bash
# Services whose backends are no pods: a process in the own node's network, one in another node's, as the API server
# is, and one outside of the cluster. Pods of both nodes reach each, by TCP and UDP, and it sees what it would see of
# a pod that speaks to it without the Service. Both nodes drop what is invalid to conntrack, so that no connection
# may pass a kernel one way alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

# The last part of virtual addresses, by where the backend is.
declare -rA VIRTUAL_HOST=([node-a]=31 [node-b]=32 [outside]=33)

main() {
    local mode host family
    setup_binaries
    lab_trap
    for mode in vxlan ipip direct; do
        lab_create
        two_nodes_up "$mode"
        underlay_add_ipv6 node-a node-b outside
        node_firewall node-a
        node_firewall node-b
        pod_plug node-a a1
        pod_plug node-b b1
        servers_up node-a node-b outside
        who_servers_up node-a node-b outside
        for host in "${!VIRTUAL_HOST[@]}"; do served "$host"; done
        for family in 4 6; do
            for host in node-a node-b outside; do
                reaches_backend "$mode" a1 "$host" "$family"
                reaches_backend "$mode" b1 "$host" "$family"
            done
        done
        named
        for host in node-a node-b; do check "$mode: $host accounts for every packet" accounts "$host"; done
        lab_down
    done
    report_end
}

# virtual HOST FAMILY
virtual() {
    local -A prefix=([4]=198.19.0. [6]=fd00:19::)
    printf '%s' "${prefix[$2]}${VIRTUAL_HOST[$1]}"
}

# underlay_address HOST FAMILY
underlay_address() { if (($2 == 4)); then echo "${HOST_ADDRESS[$1]}"; else echo "${HOST6[$1]}"; fi; }

# served HOST: both nodes have a service with a backend there.
served() {
    local node protocol virtual backends services
    virtual=$(jq -cn '$ARGS.positional' --args "$(virtual "$1" 4)" "$(virtual "$1" 6)")
    backends=$(jq -cn --argjson port "$SERVER_PORT" '$ARGS.positional | map({address: ., $port})' \
        --args "${HOST_ADDRESS[$1]}" "${HOST6[$1]}")
    services=$(for protocol in TCP UDP; do
        service "lab/$1:$protocol" "$protocol" "$virtual" "$backends"
    done | jq -cs .)
    for node in node-a node-b; do
        sync_services "$node" "{\"complete\": false, \"services\": $services, \"gone\": []}" >"$LAB_DIR/refused"
        check "$1 is taken as a backend by $node" test "$(jq -c . "$LAB_DIR/refused")" = '[]'
    done
}

# reaches_backend MODE POD HOST FAMILY
reaches_backend() {
    local mode=$1 pod=$2 host=$3 family=$4 at backend client
    at=$(virtual "$host" "$family")
    backend=$(underlay_address "$host" "$family")
    client=$(seen_as "$mode" "$pod" "$host" "$family")
    check "$mode, IPv$family: $pod reaches a backend at $host" sees "$pod" "$at" "$client $backend"
    check "by UDP, and the answer comes from the virtual address" sees_by_udp "$pod" "$at" "$client $backend"
    check "a file arrives whole" transfers "$pod" "$at"
}

# seen_as MODE POD HOST FAMILY: by its own node as itself. By all others as its node, which masquerades it; but
# without a tunnel not by the nodes that are its peers, which have IPv4 addresses here.
seen_as() {
    local node=node-${2%1}
    if [[ $3 == "$node" || ($1 == direct && $3 == node-* && $4 == 4) ]]; then
        address "$2" "$4"
    else
        underlay_address "$node" "$4"
    fi
}

named() {
    ctl node-a show sessions >"$LAB_DIR/sessions"
    check "show sessions names the backend" \
        finds "$(address a1 4):.*$(virtual outside 4):$SERVER_PORT .*${HOST_ADDRESS[outside]}:$SERVER_PORT" "$LAB_DIR/sessions"
}

main "$@"

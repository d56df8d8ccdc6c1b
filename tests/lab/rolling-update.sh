#!/bin/bash
# The backends of a Service are replaced one after the other, under load from pods of two nodes: connections that
# are held, new ones all the while, and datagrams. A backend that comes gets flows, one that is terminating gets no
# new ones and keeps those that it has, also once it is gone from the Service. No request fails.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

readonly VIRTUAL4=198.19.0.21 VIRTUAL6=fd00:19::21
readonly FORMER=(old-a old-b old-c) LATTER=(new-a new-b new-c)
readonly LOAD=(/usr/bin/python3 "$root/tests/lab/service_load.py")
# Requests that are begun later than this, once both nodes have said that a backend is gone, do not reach it.
readonly LIMIT_SECONDS=0.1
# What each backend is used for, as it was told last; and when both nodes had taken that, by what and backend.
declare -A use=() taken=()

main() {
    local number node
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    for number in "${!FORMER[@]}"; do
        node=$(node_of "$number")
        backend_up "$node" "${FORMER[number]}"
        backend_up "$node" "${LATTER[number]}"
    done
    pod_plug node-a client-a
    pod_plug node-b client-b
    for number in "${!FORMER[@]}"; do use[${FORMER[number]}]=all; done
    told >/dev/null
    load_begins
    for number in "${!FORMER[@]}"; do replaced "${FORMER[number]}" "${LATTER[number]}"; done
    load_ends
    judged
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
    report_end
}

# The first and the last of each kind are on node-a.
node_of() { if (($1 == 1)); then echo node-b; else echo node-a; fi; }

backend_up() {
    pod_plug "$1" "$2"
    lab_spawn "serve-$2" "$2" "${LOAD[@]}" serve "$2" "$SERVER_PORT"
    wait_until 5 listens "$2" "$SERVER_PORT" && wait_until 5 hears "$2" "$SERVER_PORT"
}

# told: both nodes have the service with what `use` says of each backend. Prints when the last of them had
# taken it.
told() {
    local node services
    services=$({
        service lab/web:TCP TCP "[\"$VIRTUAL4\", \"$VIRTUAL6\"]" "$(backends)"
        service lab/web:UDP UDP "[\"$VIRTUAL4\", \"$VIRTUAL6\"]" "$(backends)"
    } | jq -cs .)
    for node in node-a node-b; do
        /usr/bin/python3 "$root/tests/lab/ask.py" --when "$(node_socket "$node")" sync-services \
            "{\"complete\": false, \"services\": $services, \"gone\": []}"
    done | tail -n 1
}

backends() {
    local pod family
    for pod in "${!use[@]}"; do
        for family in 4 6; do
            printf '{"address": "%s", "port": %s, "flows": "%s"}\n' "$(address "$pod" "$family")" "$SERVER_PORT" "${use[$pod]}"
        done
    done | jq -cs .
}

load_begins() {
    lab_spawn load-client-a client-a "${LOAD[@]}" load "$VIRTUAL4" "$SERVER_PORT"
    lab_spawn load-client-b client-b "${LOAD[@]}" load "$VIRTUAL6" "$SERVER_PORT"
    local backend
    for backend in "${FORMER[@]}"; do
        check "$backend has connections that are held, new ones and datagrams" \
            wait_until 10 has_its_part "$backend" held
    done
}

load_ends() {
    lab_stop load-client-a
    lab_stop load-client-b
    cat "$LAB_DIR"/logs/load-client-*.log >"$LAB_DIR/load"
}

# has_its_part BACKEND [KIND]: new connections and datagrams of both clients, and a request of that kind of one.
has_its_part() {
    local client kind
    for client in client-a client-b; do
        for kind in connection datagram; do
            finds " $kind $1\$" "$LAB_DIR/logs/load-$client.log" || return 1
        done
    done
    (($# == 1)) || cat "$LAB_DIR"/logs/load-client-*.log | finds " $2 $1\$"
}

# replaced FORMER LATTER: as the EndpointSlices of a Deployment tell it, with time for requests in between.
replaced() {
    local former=$1 latter=$2
    use[$latter]=all
    told >/dev/null
    check "$latter gets its part when it comes" wait_until 10 has_its_part "$latter"
    use[$former]=existing
    taken[terminating $former]=$(told)
    sleep 0.5
    use[$former]=connections
    taken[unready $former]=$(told)
    sleep 0.5
    unset "use[$former]"
    taken[gone $former]=$(told)
    sleep 1
}

judged() {
    local backend
    check "no request failed of $(grep -Ec ' (connection|datagram) ' "$LAB_DIR/load")" none_failed
    for backend in "${FORMER[@]}" "${LATTER[@]}"; do
        check_not "no connection to $backend broke" finds " broken $backend " "$LAB_DIR/load"
    done
    for backend in "${FORMER[@]}"; do
        check "those that it had went on once it was gone" held_beyond "$backend" "${taken[gone $backend]}"
        check "$backend got no new connection once it was terminating" none_later connection "$backend" "${taken[terminating $backend]}"
        check "and no datagram once it was not ready" none_later datagram "$backend" "${taken[unready $backend]}"
        check "and neither once it was gone" none_later '(connection|datagram)' "$backend" "${taken[gone $backend]}"
    done
}

none_failed() { ! grep -m 3 ' failed ' "$LAB_DIR/load"; }

# none_later KIND BACKEND SINCE: no such request that began later than the limit after that.
none_later() {
    awk -v kind="^$1\$" -v backend="$2" -v since="$3" -v limit="$LIMIT_SECONDS" '
        $2 ~ kind && $2 != "broken" && $3 == backend { requests++ }
        $2 ~ kind && $2 != "broken" && $3 == backend && $1 > since + limit { late++; print $0, "is", $1 - since, "s later" }
        END { exit !(requests > 0 && late == 0) }' "$LAB_DIR/load"
}

# held_beyond BACKEND TIME: a connection that was held had an exchange later than that.
held_beyond() {
    awk -v backend="$1" -v time="$2" '
        $2 == "exchange" && $3 == backend && $1 > time { held++ }
        END { print held + 0, "exchanges later"; exit !held }' "$LAB_DIR/load"
}

main "$@"

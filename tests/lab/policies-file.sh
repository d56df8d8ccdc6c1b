#!/bin/bash
# Policies of the configuration file, on a node that no cluster tells any: pods and a host of the underlay.
# What a policy allows by name, address and port passes, and nothing else does, of pods that come later
# too; a reload puts other policies in force at once, for connections that are there.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

OUTSIDE=${HOST_ADDRESS[outside]}
OUTSIDE6=${HOST6[outside]}
# A transfer of so many files goes on while policies change.
readonly HELD_BLOBS=10
# An interval of ports, and a port in it.
readonly FIRST=9000 WITHIN=9005 LAST=9010

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_add_ipv6 node-a outside
    underlay_route_pods node-a
    in_ip outside route add "${POD_PREFIX4[node-a]}" via "${LAN_GATEWAY[lan-out]}"
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    { node_config node-a direct &&
        printf '[host]\nnon_masquerade_prefixes = ["%s/32", "%s/128"]\n' "$OUTSIDE" "$OUTSIDE6"; } >"$(node_dir node-a)/without"
    policies_are '[[policies]]' 'name = "db"' 'pods = ["demo/db*"]' 'ingress = []'
    node_start node-a
    for pod in db web; do pod_plug node-a "$pod"; done
    servers_up db web outside
    denied
    by_name
    by_port
    by_interval
    sctp_service
    by_address
    revoked
    come_later
    named_by_podman
    killed
    refused
    policies_are
    node_reload node-a
    check "without policies everybody reaches everybody" talks other db 4
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# policies_are LINE…: the node's configuration has these.
policies_are() {
    { cat "$(node_dir node-a)/without" && printf '%s\n' "$@"; } >"$(node_dir node-a)/vswitch.toml"
}

# db_allows PEERS PORTS: pods whose name begins with db are reached so, and open nothing.
db_allows() {
    policies_are '[[policies]]' 'name = "db"' 'pods = ["demo/db*"]' 'egress = []' \
        '[[policies.ingress]]' "from = [$1]" "ports = [$2]"
    node_reload node-a
}

tcp() { printf '{ protocol = "tcp", port = %s }' "$1"; }

denied() {
    local family
    for family in 4 6; do
        check_not "IPv$family: a policy without rules is in force from the start" fetch web "$(address db "$family")" who
        check_not "for ICMP too" pings web "$(address db "$family")"
        check "its own node reaches the pod" pings node-a "$(address db "$family")"
        check "and the pod others" talks db web "$family"
    done
    check_not "the underlay does not reach it" fetch outside "$(address db 4)" who
    check "it reaches who is not selected" fetch outside "$(address web 4)" who
    check "a pod with a name waits for nobody" test "$(ctl node-a --json status | jq '[.attention[]? | select(test("policies"))] | length')" = 0
    ctl node-a show policies >"$LAB_DIR/policies"
    check "show policies names it" finds "^demo/db  *ingress  *policies  *network  *0  *vswitch.toml/db$" "$LAB_DIR/policies"
    check "and who has none" finds "^demo/web  *ingress  *open" "$LAB_DIR/policies"
}

by_name() {
    local family
    db_allows '{ pods = ["demo/web"] }' "$(tcp "$SERVER_PORT")"
    for family in 4 6; do
        check "IPv$family: a pod is allowed by name" talks web db "$family"
        check_not "and opens nothing itself, as its egress is isolated" fetch db "$(address web "$family")" who
    done
    check_not "the underlay is not" fetch outside "$(address db 4)" who
    check "trace names the policy" finds "ingress of demo/db allowed by vswitch.toml/db rule 0" \
        <<<"$(ctl node-a trace --from demo/web --to "$(address db 4)" --proto tcp --dport "$SERVER_PORT")"
}

by_port() {
    db_allows '{ pods = ["demo/web"] }' '{ protocol = "udp" }, { port = 1, end_port = '$((SERVER_PORT - 1))' }'
    check_not "by other ports it is not" fetch web "$(address db 4)" who
    db_allows '{ pods = ["demo/web"] }' '{ port = 1, end_port = '"$SERVER_PORT"' }'
    check "until they have one more" fetch web "$(address db 4)" who
}

# The ends of an interval are in it, and their neighbours are not, by each protocol.
by_interval() {
    local port protocol
    for port in $((FIRST - 1)) $FIRST $WITHIN $LAST $((LAST + 1)); do
        lab_spawn "server-db-$port" db /usr/bin/python3 "$root/scripts/lib/pod_server.py" "$port" "$LAB_DIR/blob"
        lab_spawn "who-db-$port" db /usr/bin/python3 "$root/scripts/lib/udp_who.py" serve "$port"
        wait_until 10 listens db "$port" || die "The server in db does not listen"
        wait_until 10 hears db "$port" || die "The UDP server in db does not listen"
    done
    lab_spawn sctp-db db /usr/bin/python3 "$root/tests/lab/sctp_init.py" serve
    wait_until 10 listens_raw db || die "The SCTP server in db does not listen"
    db_allows '{ pods = ["demo/web"] }' "$(interval tcp), $(interval udp)"
    check "trace names the rule" finds "ingress of demo/db allowed by vswitch.toml/db rule 0" \
        <<<"$(ctl node-a trace --from demo/web --to "$(address db 4)" --proto udp --dport "$LAST")"
    check_not "SCTP is not allowed by TCP and UDP" asks_sctp "$(address db 4)" "$WITHIN"
    db_allows '{ pods = ["demo/web"] }' "$(interval tcp), $(interval udp), $(interval sctp)"
    for protocol in tcp udp sctp; do
        for port in $FIRST $WITHIN $LAST; do
            check "$protocol: port $port is in $FIRST to $LAST" "asks_$protocol" "$(address db 4)" "$port"
        done
        for port in $((FIRST - 1)) $((LAST + 1)); do
            check_not "$protocol: port $port is not" "asks_$protocol" "$(address db 4)" "$port"
        done
    done
    check "SCTP over IPv6 is allowed" asks_sctp "$(address db 6)" "$LAST"
    check_not "and denied" asks_sctp "$(address db 6)" $((LAST + 1))
    db_allows '{ pods = ["demo/web"] }' '{ protocol = "sctp" }'
    check "all of SCTP is every port of it" asks_sctp "$(address db 4)" $((LAST + 1))
    check_not "and nothing else" asks_tcp "$(address db 4)" "$WITHIN"
    db_allows '{ pods = ["demo/web"] }' "$(interval sctp)"
}

interval() { printf '{ protocol = "%s", port = %s, end_port = %s }' "$1" "$FIRST" "$LAST"; }

# asks_PROTOCOL ADDRESS PORT: from web, and there is an answer.
asks_tcp() { in_ns web timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2"; }
asks_udp() { in_ns web /usr/bin/python3 "$root/scripts/lib/udp_who.py" ask "$1" "$2"; }
asks_sctp() { in_ns web /usr/bin/python3 "$root/tests/lab/sctp_init.py" ask "$1" "$2"; }

# listens_raw NAME: a raw socket of SCTP is open there, of each IP version.
listens_raw() { [[ $(in_ns "$1" ss -Hlnw | grep -c ':132 \|:sctp ') == 2 ]]; }

# A service's connection is judged by the backend's port. The checksum of SCTP covers both.
sctp_service() {
    serve_sctp "$WITHIN"
    check "SCTP to a service is allowed by the backend's port" asks_sctp 198.19.0.7 5432
    check "explain says so" finds "^ingress  demo/db selected by vswitch.toml/db; allowed by vswitch.toml/db rule 0$" \
        <<<"$(ctl node-a explain demo/web demo/signal)"
    serve_sctp $((LAST + 1))
    check_not "and denied by it" asks_sctp 198.19.0.7 5432
    check "explain says so too" finds "^ingress  demo/db selected by vswitch.toml/db; denied, as no rule allows it$" \
        <<<"$(ctl node-a explain demo/web demo/signal)"
}

# serve_sctp PORT: node-a has a service with this port of db as its backend.
serve_sctp() {
    /usr/bin/python3 "$root/tests/lab/ask.py" "$(node_socket node-a)" sync-services "$(jq -cn \
        --arg address "$(address db 4)" --argjson at "$1" '{complete: false, gone: [], services: [
            {name: "demo/signal", protocol: "SCTP", port: 5432, addresses: ["198.19.0.7"], backends: [{$address, port: $at}]}]}')" >/dev/null
}

by_address() {
    db_allows "{ cidr = \"$OUTSIDE/32\" }, { cidr = \"$OUTSIDE6/128\" }" "$(tcp "$SERVER_PORT")"
    check "a host is allowed by address" fetch outside "$(address db 4)" who
    check "over IPv6 too" fetch outside "$(address db 6)" who
    check_not "and nobody else" fetch web "$(address db 4)" who
    db_allows "{ cidr = \"0.0.0.0/0\", except = [\"$OUTSIDE/32\"] }" "$(tcp "$SERVER_PORT")"
    check_not "an exception is left out" fetch outside "$(address db 4)" who
    check "others are in" fetch web "$(address db 4)" who
    db_allows '{ pods = ["demo/web"] }' "$(tcp "$SERVER_PORT")"
}

# A transfer stops where a reload leaves its client out.
revoked() {
    local held
    in_ns web curl -sS --noproxy '*' --limit-rate 2M --max-time 60 "$(url "$(address db 4)" "blob/$HELD_BLOBS")" >"$LAB_DIR/held" 2>/dev/null &
    held=$!
    check "a transfer begins" wait_until 5 test -s "$LAB_DIR/held"
    db_allows '{ pods = ["demo/other"] }' "$(tcp "$SERVER_PORT")"
    check "it is revoked" wait_until 5 drops node-a policy-revoked
    kill "$held" 2>/dev/null || true
    wait "$held" 2>/dev/null || true
    check_not "and there is no other" fetch web "$(address db 4)" who
}

come_later() {
    pod_plug node-a other
    pod_plug node-a db-2
    servers_up other db-2
    check "a pod that comes is one of those that are allowed" talks other db 4
    check "and is selected" talks other db-2 4
    check_not "by whom it is not allowed" fetch web "$(address db-2 4)" who
    pod_unplug node-a db-2
    check "who goes leaves the others as they are" talks other db 4
    check_not "and no policy" finds "demo/db-2" <<<"$(ctl node-a show policies)"
}

# podman gives its container's name, and no namespace.
named_by_podman() {
    db_allows '{ pods = ["cache"] }' "$(tcp "$SERVER_PORT")"
    lab_add_ns cache
    plug_by_podman cache >"$LAB_DIR/cache.json"
    pod_address "$LAB_DIR/cache.json" '\.' >"$LAB_DIR/addresses/cache.4"
    check "a container has the name that podman gives it" finds " cache " <<<"$(ctl node-a show ports | sed 's/^/ /')"
    check "and is allowed by that" fetch cache "$(address db 4)" who
    check_not "another is not" fetch other "$(address db 4)" who
    db_allows '{ pods = ["demo/other"] }' "$(tcp "$SERVER_PORT")"
}

# plug_by_podman POD: an ADD as podman asks for it.
plug_by_podman() {
    jq --arg socket "$(node_socket node-a)" --arg state "$(node_dir node-a)/state" \
        '{cniVersion, name} + .plugins[0] + {socket: $socket, stateDir: $state}' "$root/config/10-vswitch.conflist" |
        in_ns node-a env -i PATH="$PATH" CNI_COMMAND=ADD CNI_CONTAINERID="$(ns "$1")" CNI_IFNAME=eth0 \
            CNI_NETNS="/run/netns/$(ns "$1")" CNI_PATH="$bin" CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=$1" \
            timeout 20 "$bin/vswitch-cni"
}

killed() {
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    node_spawn node-a
    wait_until 20 ctl node-a status
    node_adjust node-a >/dev/null
    check "a daemon that follows one that was killed reads them again" wait_until 10 talks other db 4
    check_not "and denies what they deny" fetch web "$(address db 4)" who
}

# What cannot be is refused by its key, and nothing changes.
refused() {
    policies_are '[[policies]]' 'name = "db"' 'pods = ["demo/db*"]' '[[policies.ingress]]' 'from = []'
    "$bin/vswitchd" --check --config "$(node_dir node-a)/vswitch.toml" >"$LAB_DIR/check" 2>&1 || true
    check "--check names key and remedy" finds "policies\[0\].ingress\[0\].from: it is empty; leave the key out" "$LAB_DIR/check"
    kill -HUP "$(lab_pid vswitchd-node-a)"
    check "so does a reload" wait_until 5 finds "policies\[0\].ingress\[0\].from: it is empty" "$LAB_DIR/logs/vswitchd-node-a.log"
    check "and what was in force is" talks other db 4
    check_not "as it was" fetch web "$(address db 4)" who
}

main "$@"

#!/bin/bash
# Services in the datapath: pods of two nodes speak to virtual addresses, whose backends see the pod itself.
# Services are told to the daemons as a cluster's agent tells them.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

# The last part of virtual addresses, by what is behind them.
declare -rA VIRTUAL_HOST=([near]=11 [far]=12 [self]=13 [both]=14 [none]=15 [elsewhere]=16 [first]=17 [second]=18)

# A transfer of so many files goes on while its service changes.
readonly HELD_BLOBS=10

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1
    who_servers_up a1 a2 b1
    told near "$(backends a2)"
    told far "$(backends b1)"
    told self "$(backends a1)"
    told both "$(backends a2 b1)"
    told none '[]'
    told elsewhere '[]' '{"without_backend": "drop"}'
    local family
    for family in 4 6; do
        reached "$family"
        refused "$family"
    done
    backends_change
    datagrams_follow 4
    datagrams_follow 6
    deleted 4
    deleted 6
    affine
    bad_services
    shown
    killed
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# virtual NAME FAMILY
virtual() {
    local -A prefix=([4]=198.19.0. [6]=fd00:19::)
    printf '%s' "${prefix[$2]}${VIRTUAL_HOST[$1]}"
}

# backends POD…: both addresses of each.
backends() {
    local pod family
    for pod in "$@"; do
        for family in 4 6; do
            printf '{"address": "%s", "port": %s}\n' "$(address "$pod" "$family")" "$SERVER_PORT"
        done
    done | jq -cs .
}

# told NAME BACKENDS [MORE]: both nodes have the service, at both of its addresses, by TCP and UDP. `told_at` is
# when the second took it.
told() {
    local services
    services=$(jq -cn --arg name "$1" --argjson backends "$2" --argjson more "${3:-{\}}" --argjson port "$SERVER_PORT" \
        --arg v4 "$(virtual "$1" 4)" --arg v6 "$(virtual "$1" 6)" \
        '[("TCP", "UDP") | {name: "lab/\($name):\(.)", protocol: ., $port, addresses: [$v4, $v6], $backends} + $more]')
    both_told "$services" '[]'
}

# both_told SERVICES GONE: both nodes have these services, and no more those whose names are GONE.
both_told() {
    local node
    for node in node-a node-b; do
        told_at=$(/usr/bin/python3 "$root/tests/lab/ask.py" --when "$(node_socket "$node")" sync-services \
            "{\"complete\": false, \"services\": $1, \"gone\": $2}")
    done
}

# A backend sees the pod that asks; a pod that is its own backend sees the gateway.
reached() {
    local own a2 b1
    own=$(address a1 "$1") a2=$(address a2 "$1") b1=$(address b1 "$1")
    say "IPv$1"
    check "a pod reaches a backend of its node" sees a1 "$(virtual near "$1")" "$own $a2"
    check "by UDP, and the answer comes from the virtual address" sees_by_udp a1 "$(virtual near "$1")" "$own $a2"
    check "a file arrives whole" transfers a1 "$(virtual near "$1")"
    check "a pod reaches a backend of another node" sees a1 "$(virtual far "$1")" "$own $b1"
    check "a file arrives whole" transfers a1 "$(virtual far "$1")"
    check "a pod of the other node reaches one of this" sees b1 "$(virtual near "$1")" "$b1 $a2"
    check "a pod reaches itself by its service" sees a1 "$(virtual self "$1")" "$(gateway "$1") $own"
    check "both backends of a service are reached" both_answer "$1"
}

gateway() { in_ip a1 -json "-$1" route show default | jq -r '.[0].gateway'; }

# both_answer FAMILY: of 20 connections each backend gets some.
both_answer() {
    local at count seen
    at=$(virtual both "$1")
    for count in {1..20}; do fetch a1 "$at" who; done >"$LAB_DIR/both"
    seen=$(sort "$LAB_DIR/both" | uniq -c)
    [[ $(cut -d' ' -f2 "$LAB_DIR/both" | sort -u | wc -l) == 2 ]] || { echo "of $count: $seen" && return 1; }
}

refused() {
    local at
    at=$(virtual none "$1")
    check "a service without backends refuses a connection at once" refuses a1 "$at" "$SERVER_PORT"
    check "and so does a port that it does not have" refuses a1 "$(virtual near "$1")" 9
    check "a datagram to it is refused, too" datagram_refused "$at"
    check_not "a service whose backends are elsewhere says nothing" fetch a1 "$(virtual elsewhere "$1")" who
}

# refuses POD ADDRESS PORT: the kernel of the pod gets a reset.
refuses() {
    in_ns "$1" /usr/bin/python3 - "$2" "$3" <<'PYTHON'
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
except ConnectionRefusedError:
    sys.exit(0)
except OSError as error:
    sys.exit(f"not refused: {error}")
sys.exit("not refused: somebody answered")
PYTHON
}

datagram_refused() {
    in_ns a1 /usr/bin/python3 - "$1" "$SERVER_PORT" <<'PYTHON'
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.send(b"who?")
    try:
        client.recv(100)
    except ConnectionRefusedError:
        sys.exit(0)
    except OSError as error:
        sys.exit(f"not refused: {error}")
sys.exit("not refused: somebody answered")
PYTHON
}

# One connection is held while its service gets another backend: it stays where it is, and a new one does not.
backends_change() {
    local held at
    at=$(virtual near 4)
    in_ns a1 curl -sS --noproxy '*' --limit-rate 4M --max-time 60 "$(url "$at" "blob/$HELD_BLOBS")" >"$LAB_DIR/held" 2>"$LAB_DIR/held.err" &
    held=$!
    wait_until 5 is_established "$at"
    told near "$(jq -c 'map(. + {flows: "connections"})' <<<"$(backends a2)" | jq -c --argjson more "$(backends b1)" '. + $more')"
    check "a new connection goes to the new backend" sees a1 "$at" "$(address a1 4) $(address b1 4)"
    check "one that was there goes on at the old one" still_runs "$held"
    wait_until 60 gone "$held"
    check "and its file is whole" arrived
    told near "$(backends a2)"
}

# A client sends from one socket all the time, while the service of its flow loses its only backend and gets
# another. What it sends after the daemons took a change, goes by that.
datagrams_follow() {
    local at own emptied given
    at=$(virtual near "$1") own=$(address a1 "$1")
    rm -f "$LAB_DIR/logs/datagrams.log"
    lab_spawn datagrams a1 /usr/bin/python3 "$root/tests/lab/held_datagrams.py" "$at" "$SERVER_PORT"
    check "IPv$1: a flow of datagrams has its backend" wait_until 5 comes_back "$own $(address a2 "$1")"
    told near '[]'
    emptied=$told_at
    sleep 0.6
    told near "$(backends b1)"
    given=$told_at
    sleep 0.6
    lab_stop datagrams
    check "once none is left, each datagram is refused" all_come_back refused "$emptied" 0.5
    check "and once there is another, each goes there" all_come_back "$own $(address b1 "$1")" "$given" 0.5
    told near "$(backends a2)"
}

# The same, while its service is deleted and made again. The address keeps another port, TCP's.
deleted() {
    local at own gone given
    at=$(virtual near "$1") own=$(address a1 "$1")
    rm -f "$LAB_DIR/logs/datagrams.log"
    lab_spawn datagrams a1 /usr/bin/python3 "$root/tests/lab/held_datagrams.py" "$at" "$SERVER_PORT"
    check "IPv$1: a flow of datagrams has its backend" wait_until 5 comes_back "$own $(address a2 "$1")"
    both_told '[]' '["lab/near:UDP"]'
    gone=$told_at
    sleep 0.6
    check "what is deleted is not shown" shown_no_more lab/near:UDP
    told near "$(backends a2)"
    given=$told_at
    sleep 0.6
    lab_stop datagrams
    check "once its service is deleted, each datagram is refused" all_come_back refused "$gone" 0.5
    check "and once it is there again, each has its backend" all_come_back "$own $(address a2 "$1")" "$given" 0.5
}

# shown_no_more NAME
shown_no_more() { ! ctl node-a show services | finds "^$1 "; }

# comes_back WHAT: to the last datagram.
comes_back() { tail -n 1 "$LAB_DIR/logs/datagrams.log" | finds " $1\$"; }

# all_come_back WHAT SINCE SECONDS: to each datagram that was sent within so many seconds from then.
all_come_back() {
    awk -v what="$1" -v since="$2" -v seconds="$3" '
        $1 > since && $1 < since + seconds { count++; time = $1; sub(/^[^ ]* /, ""); if ($0 != what) { others++; print time - since, "s later:", $0 } }
        END { exit !(count >= 5 && others == 0) }' "$LAB_DIR/logs/datagrams.log"
}

# Two services with the same two backends, each of which had one of them alone when its client came. Without
# affinity both would give the client one backend, as they differ in nothing that a choice is made of.
affine() {
    local sticky='{"affinity_seconds": 600}' family
    told first "$(backends a2)" "$sticky"
    told second "$(backends b1)" "$sticky"
    for family in 4 6; do
        check "IPv$family: a client gets a backend under affinity" sees a1 "$(virtual first "$family")" "$(address a1 "$family") $(address a2 "$family")"
        check "IPv$family: and of another service another one" sees a1 "$(virtual second "$family")" "$(address a1 "$family") $(address b1 "$family")"
    done
    told first "$(backends a2 b1)" "$sticky"
    told second "$(backends a2 b1)" "$sticky"
    check "when more backends come it keeps what it had" keeps_backends
    ctl node-a show services >"$LAB_DIR/services"
    check "show services tells for how long" finds "^lab/first:TCP .* 600 s" "$LAB_DIR/services"
    ctl node-a trace --from demo/a1 --to "$(virtual first 4)" --proto tcp --dport "$SERVER_PORT" >"$LAB_DIR/trace"
    check "trace tells that the client had it last" \
        finds "begins: to $(address a2 4):$SERVER_PORT, which its client had last" "$LAB_DIR/trace"
}

# Whatever the client's port.
keeps_backends() {
    local family
    for family in 4 6; do
        for _ in {1..5}; do
            sees a1 "$(virtual first "$family")" "$(address a1 "$family") $(address a2 "$family")" || return 1
            sees a1 "$(virtual second "$family")" "$(address a1 "$family") $(address b1 "$family")" || return 1
        done
    done
}

is_established() { ctl node-a --json show sessions | jq -e --arg at "$1" '.sessions | any(.server.address == $at and .state == "established")'; }

still_runs() { ! gone "$1"; }

arrived() {
    local number wanted
    wanted=$(for ((number = 0; number < HELD_BLOBS; number++)); do cat "$LAB_DIR/blob"; done | sha256sum)
    [[ $(sha256sum <"$LAB_DIR/held") == "$wanted" ]] || { cat "$LAB_DIR/held.err" && return 1; }
}

# What takes somebody's address is not served, and named; nobody else loses anything.
bad_services() {
    local service answer
    service=$(jq -cn --arg pod "$(address a2 4)" --arg node "${HOST_ADDRESS[node-b]}" --argjson port "$SERVER_PORT" \
        --argjson backends "$(backends b1)" \
        '{name: "lab/thief:x", protocol: "TCP", $port, addresses: [$pod, $node, "198.19.0.99"], $backends}')
    answer=$(sync_services node-a "{\"complete\": false, \"services\": [$service], \"gone\": []}")
    check "a service at a pod's address is not served there" finds "$(address a2 4) is not served" <<<"$answer"
    check "nor at a node's" finds "${HOST_ADDRESS[node-b]} is not served" <<<"$answer"
    check "the rest of it is" sees a1 198.19.0.99 "$(address a1 4) $(address b1 4)"
    check "the pod keeps its traffic" talks a1 a2 4
    service=$(jq -c '.name = "lab/lost:x" | .backends[0].address = "127.0.0.1"' <<<"$service")
    answer=$(sync_services node-a "{\"complete\": false, \"services\": [$service], \"gone\": [\"lab/thief:x\"]}")
    check "a backend that is a loopback address is refused" finds "lab/lost:x.*loopback" <<<"$answer"
    check "what is withdrawn is not served any more" refuses_or_silent a1 198.19.0.99
}

refuses_or_silent() { ! fetch "$1" "$2" who; }

shown() {
    ctl node-a show services >"$LAB_DIR/services"
    check "show services names a service and its backends" finds "^lab/far:TCP .*$(address b1 4):$SERVER_PORT" "$LAB_DIR/services"
    ctl node-a show sessions >"$LAB_DIR/sessions"
    check "show sessions names what a client speaks to, and who answers" \
        finds "$(address a1 4):[0-9]* (demo/a1) .*$(virtual near 4):$SERVER_PORT (lab/near:TCP) .*$(address a2 4):$SERVER_PORT (demo/a2)" "$LAB_DIR/sessions"
    ctl node-a trace --from demo/a1 --to "$(virtual far 4)" --proto tcp --dport "$SERVER_PORT" >"$LAB_DIR/trace"
    check "trace tells which backend a flow would get" finds "session .*begins: to $(address b1 4):$SERVER_PORT" "$LAB_DIR/trace"
    ctl node-a trace --from demo/a1 --to "$(virtual none 4)" --proto tcp --dport "$SERVER_PORT" >"$LAB_DIR/trace"
    check "or why none" finds "service-refused\|no backend is ready" "$LAB_DIR/trace"
}

# A transfer goes on over the death of the daemon: its backend speaks first, to a client that knows the
# virtual address alone.
killed() {
    local held at
    at=$(virtual far 4)
    in_ns a1 curl -sS --noproxy '*' --limit-rate 4M --max-time 60 "$(url "$at" "blob/$HELD_BLOBS")" >"$LAB_DIR/held" 2>"$LAB_DIR/held.err" &
    held=$!
    wait_until 5 is_established "$at"
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    node_spawn node-a
    wait_until 20 ctl node-a status
    node_adjust node-a >/dev/null
    check "the next daemon has the sessions of the one that was killed" is_established "$at"
    check "a transfer goes on" still_runs "$held"
    check "its services are served before anybody tells them" \
        wait_until 10 sees a1 "$at" "$(address a1 4) $(address b1 4)"
    check "clients under affinity keep their backends" keeps_backends
    wait_until 60 gone "$held"
    check "the file is whole" arrived
    told first "$(jq -c 'map(. + {flows: "existing"})' <<<"$(backends a2)" | jq -c --argjson more "$(backends b1)" '. + $more')" \
        '{"affinity_seconds": 600}'
    check "a backend that takes no new flows is given up" \
        sees a1 "$(virtual first 4)" "$(address a1 4) $(address b1 4)"
}

main "$@"

#!/bin/bash
# The file of the sessions is damaged while no daemon runs: the next one starts all the same and `status` tells what
# became of it. Connections and flows go on that policies allow, whichever end may open them, also those through a
# Service; what policies deny stays denied.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

readonly HELD=(/usr/bin/python3 "$root/tests/lab/held_connection.py")
readonly STREAM=(/usr/bin/python3 "$root/tests/lab/datagram_stream.py")
readonly VIRTUAL=198.19.0.41 STREAM_PORT=7400
# What comes from another node while no daemon runs is lost, and sent again by TCP.
readonly PATIENCE_SECONDS=20

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    local pod
    for pod in a1 a2 a3; do pod_plug node-a "$pod"; done
    pod_plug node-b b1
    for pod in a2 b1; do
        lab_spawn "serve-$pod" "$pod" "${HELD[@]}" serve "$SERVER_PORT"
        wait_until 5 listens "$pod" "$SERVER_PORT"
    done
    lab_spawn stream b1 "${STREAM[@]}" send "$STREAM_PORT"
    wait_until 5 hears b1 "$STREAM_PORT"
    sync_services node-a "$(jq -cn --argjson service "$(service lab/held:TCP TCP "[\"$VIRTUAL\"]" \
        "[{\"address\": \"$(address b1 4)\", \"port\": $SERVER_PORT}]")" \
        '{complete: true, services: [$service], gone: []}')" >/dev/null
    round overwritten answers_come_first
    round scribbled_over revoked_is_denied
    round cut_short answers_come_first
    round replaced_by_a_directory answers_come_first
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# round DAMAGE [CHECKS]: a function of that name does it; another checks what is peculiar to it.
round() {
    heading "sessions4 is ${1//_/ }"
    begun_anew
    flows_begin
    daemon_dies
    "$1" "$(node_dir node-a)/sessions4"
    received >"$LAB_DIR/received"
    check "vswitchd starts" daemon_starts
    check "status tells what became of it" "status_after_$1"
    ${2:+"$2"}
    check_not "who is denied opens nothing" opens a3 a2
    check "who is allowed does" opens a1 a2
    flows_end
}

# For a minute after a table was lost, the first packet of a flow passes if policies allow the flow in either
# direction: it may be an answer.
answers_come_first() {
    check "datagrams that come first from the end that answers pass" wait_until 5 received_more
}

# Where the table was not lost, the one with a client's port has opened a connection, and is judged.
revoked_is_denied() {
    check "what was revoked before is denied" wait_until 10 drops node-a policy-denied
}

daemon_dies() {
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
}

daemon_starts() { node_start node-a && node_adjust node-a; }

# No session is left of the round before, nor is it remembered that some were lost.
begun_anew() {
    daemon_dies
    rm -rf "$(node_dir node-a)"/{sessions4,sessions6,affinity}
    daemon_starts >/dev/null
}

# Who may open what: a1 to a2, which takes nothing of b1; a3 may until it has a connection.
flows_begin() {
    local pod
    sync_policies node-a "$(rule_set from-a "$(allow_blocks "$(address a1 4)/32" "$(address a3 4)/32")")" \
        "$(subjects a1=/ a2=from-a/ a3=/)" >/dev/null
    flow_begins allowed a1 "$(address a2 4)"
    flow_begins answered a2 "$(address b1 4)"
    flow_begins by-service a1 "$VIRTUAL"
    flow_begins revoked a3 "$(address a2 4)"
    rm -f "$LAB_DIR/logs/received.log"
    lab_spawn received a2 "${STREAM[@]}" receive "$(address b1 4)" "$STREAM_PORT"
    wait_until 5 received_some
    sleep 0.5
    sync_policies node-a "$(rule_set from-a "$(allow_blocks "$(address a1 4)/32")")" >/dev/null
    wait_until 5 drops node-a policy-revoked
}

# flow_begins NAME POD ADDRESS: a connection that is used all the time.
flow_begins() {
    rm -f "$LAB_DIR/logs/held-$1.log"
    lab_spawn "held-$1" "$2" "${HELD[@]}" hold "$3" "$SERVER_PORT" "$PATIENCE_SECONDS"
    wait_until 5 is_connected "$2" "$3"
}

is_connected() { in_ns "$1" ss -Htn state established "dst $2:$SERVER_PORT" | finds .; }

flows_end() {
    local name
    # After so long each connection has tried again.
    sleep 3
    for name in allowed answered by-service; do
        lab_signal "held-$name" INT || true
        check "the connection \"$name\" went on" held "$name"
    done
    lab_stop held-revoked
    lab_stop received
}

held() { tail -n 1 "$LAB_DIR/logs/held-$1.log" && tail -n 1 "$LAB_DIR/logs/held-$1.log" | finds "^held for"; }

# opens POD POD: a new connection, with one exchange.
opens() {
    in_ns "$1" /usr/bin/python3 -c 'import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as connection:
    connection.sendall(b"x\n")
    assert connection.recv(9) == b"x\n"' "$(address "$2" 4)" "$SERVER_PORT"
}

received() { tail -n 1 "$LAB_DIR/logs/received.log"; }

received_some() { [[ -n $(received) ]]; }

received_more() { (($(received) > $(cat "$LAB_DIR/received") + 20)); }

# node_status: as one text.
node_status() { ctl node-a --json status | jq -r '(.choices + .warnings)[]'; }

# As by another program.
overwritten() { head -c 65536 /dev/urandom | dd of="$1" conv=notrunc status=none; }

status_after_overwritten() { node_status | finds '^sessions: begun anew, as a file is no use (the file is no session table)$'; }

# Its header is whole.
scribbled_over() { head -c $(($(stat -c %s "$1") - 4096)) /dev/urandom | dd of="$1" bs=4096 seek=1 conv=notrunc status=none; }

status_after_scribbled_over() { node_status | finds '^sessions: .* of a former daemon go on'; }

cut_short() { truncate -s 4096 "$1"; }

status_after_cut_short() { node_status | finds '^sessions: begun anew, as a file is no use'; }

replaced_by_a_directory() {
    rm "$1"
    mkdir "$1"
}

status_after_replaced_by_a_directory() { node_status | finds '^sessions end with this daemon, as their files cannot be used: .*sessions4'; }

main "$@"

#!/bin/bash
# Whatever systemd or an operator does to a running daemon, its pods keep interface, addresses and
# connections: restart, SIGKILL, an upgrade, a hang that the watchdog ends, stop and start. Under pings,
# held connections and transfers, from a pod to one of its own node and to one of another.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/systemd_root.sh
. "$root/scripts/lib/systemd_root.sh"
# shellcheck source=scripts/lib/systemd_node.sh
. "$root/scripts/lib/systemd_node.sh"

readonly ECHO_PORT=2222
# Slow enough for a transfer to outlast what happens meanwhile.
readonly BYTES_A_SECOND=300000
readonly PODS=(a1 a2)

main() {
    setup_binaries
    lab_trap
    lab_create
    systemd_two_nodes_up
    systemd_vswitch_up node-a vxlan node-b
    systemd_pod_plug node-a a1
    systemd_pod_plug node-a a2
    pod_plug node-b b1
    servers_up a2 b1
    check "systemd holds a descriptor for each pod, and one for the host port" holds_descriptors 2
    connections_held
    under_traffic "systemctl restart" restarted
    nothing_lost
    under_traffic "systemctl kill --signal KILL" killed
    nothing_lost
    another_build
    under_traffic "an upgrade by scripts/install" upgraded
    nothing_lost
    under_traffic "a hang, which the watchdog ends" hung
    nothing_lost
    under_traffic "systemctl restart of the socket" socket_restarted
    under_traffic "systemctl stop and start" stopped_and_started
    check "systemctl stop and start, eight times within a minute" stopped_and_started_often
    connections_ended
    check "DEL of a1" systemd_pod_unplug node-a a1
    check "systemd holds one descriptor less" wait_until 5 holds_descriptors 1
    inside node-a ip netns del a2
    lab_delete_ns a2
    check "and one less for a namespace that ends without DEL" wait_until 5 holds_descriptors 0
    del_while_stopped
    report_end
}

# The plugin is root, and leaves the DEL to the unit's own user.
del_while_stopped() {
    systemd_pod_plug node-a a3
    inside node-a systemctl stop vswitchd.socket vswitchd.service
    check "DEL of a3 while the units are stopped" systemd_pod_unplug node-a a3
    check_not "waits on disk" queue_is_empty
    inside node-a systemctl start vswitchd.socket vswitchd.service
    check "and no more once they are started" queue_is_empty
    check "nothing is wrong with the queue" quiet_about_queue
}

queue_is_empty() { [[ -z $(inside node-a ls /var/lib/vswitch/del-queue) ]]; }

quiet_about_queue() {
    ! inside node-a journalctl --quiet --unit vswitchd | finds -e 'may keep their addresses' -e 'del-queue'
}

restarted() { inside node-a systemctl restart vswitchd; }

killed() {
    inside node-a systemctl kill --signal KILL vswitchd && another_runs "$1"
}

upgraded() {
    systemd_node_install node-a /other && inside node-a systemctl restart vswitchd &&
        inside node-a cmp /other/vswitchd "/proc/$(main_pid)/exe"
}

# The same programs as other files, of another content.
another_build() {
    local name
    inside node-a mkdir /other
    for name in vswitchd vswitchctl vswitch-cni; do
        inside node-a sh -ec "cat /built/$name - >/other/$name && chmod 0755 /other/$name" <<<""
    done
}

hung() {
    inside node-a systemctl kill --kill-whom main --signal STOP vswitchd && another_runs "$1" &&
        inside node-a journalctl --quiet --unit vswitchd | finds 'Watchdog timeout (limit 5s)'
}

# The service requires it, and is restarted with it.
socket_restarted() { inside node-a systemctl restart vswitchd.socket; }

stopped_and_started() {
    inside node-a systemctl stop vswitchd.service && inside node-a systemctl start vswitchd.service
}

# More often than systemd starts a unit by default: each time vswitch-adjust opens the TAPs again.
stopped_and_started_often() {
    local round
    for round in {1..8}; do
        stopped_and_started
        if ! wait_until 10 pings a1 "$(address a2 4)"; then
            echo "round $round leaves the pods cut off"
            return 1
        fi
    done
}

main_pid() { inside node-a systemctl show --property MainPID --value vswitchd; }

# another_runs PID: the daemon is another process than that, and is ready.
another_runs() {
    wait_until 30 other_main_pid "$1" && wait_until 30 inside node-a systemctl is-active vswitchd
}

other_main_pid() { [[ ! $(main_pid) =~ ^(0|$1)$ ]]; }

# under_traffic WHAT COMMAND: the command gets the daemon's pid.
under_traffic() {
    local what=$1 before pid
    before=$(main_pid)
    kept >"$LAB_DIR/kept.before"
    traffic_begin
    check "$what" "$2" "$before"
    check "then another daemon runs" another_runs "$before"
    check "a1 reaches its neighbour" wait_until 10 pings a1 "$(address a2 4)"
    check "and the other node, by IPv4" wait_until 10 pings a1 "$(address b1 4)"
    check "and by IPv6" wait_until 10 pings a1 "$(address b1 6)"
    check "the transfer to its neighbour arrives whole" transferred a2
    check "and the one to the other node" transferred b1
    for pid in ping-a2 ping-b1; do lab_signal "$pid" INT; done
    check "interfaces, addresses, routes and neighbours are as before" \
        diff "$LAB_DIR/kept.before" <(kept)
    check "the connections are held" connections_are_held
    check "systemd holds the descriptors" wait_until 5 holds_descriptors 2
}

# What a pod keeps.
kept() {
    local pod
    for pod in "${PODS[@]}"; do
        in_ip "$pod" -json address show dev eth0 |
            jq -c '.[] | [.ifindex, .address, .mtu, .ifalias], (.addr_info[] | [.local, .prefixlen])'
        in_ip "$pod" route show
        in_ip "$pod" -6 route show
        in_ip "$pod" neigh show nud permanent
    done
}

traffic_begin() {
    local to
    for to in a2 b1; do
        : >"$LAB_DIR/logs/ping-$to.log"
        lab_spawn "ping-$to" a1 ping -n -i 0.1 "$(address "$to" 4)"
        : >"$LAB_DIR/logs/transfer-$to.log"
        lab_spawn "transfer-$to" a1 /usr/bin/python3 "$root/scripts/lib/paced_transfer.py" \
            "$(address "$to" 4)" "$SERVER_PORT" blob "$BYTES_A_SECOND" 3
        wait_until 5 grep -q 'icmp_seq=3 ' "$LAB_DIR/logs/ping-$to.log"
    done
}

# transferred POD
transferred() {
    local sum bytes
    wait_until 60 lab_gone "transfer-$1"
    read -r bytes sum _ <"$LAB_DIR/logs/transfer-$1.log"
    [[ $bytes == "$BLOB_BYTES" && $sum == "$(cut -d' ' -f1 "$LAB_DIR/blob.sha256")" ]] ||
        { cat "$LAB_DIR/logs/transfer-$1.log" && return 1; }
}

# Meanwhile packets wait in the TAPs' queues.
nothing_lost() { check "and no packet to its neighbour is lost" loses_nothing; }

# Of all that were sent before the last that was answered.
loses_nothing() {
    sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$LAB_DIR/logs/ping-a2.log" | sort -nu |
        awk '$1 != NR { print "number " NR " was not answered"; exit 1 }'
}

# holds_descriptors PODS: systemd holds one for each of so many pods, and one for the host port.
holds_descriptors() {
    local held
    held=$(inside node-a systemctl show --property NFileDescriptorStore --value vswitchd)
    ((held == $1 + 1)) || { echo "it holds $held" && return 1; }
}

# From the pod to its neighbour, to the other node's pod, and to the world, by masquerading; and from the
# node to the pod's neighbour, by the host port.
readonly CONNECTIONS=("a1 a2" "a1 b1" "a1 outside" "node-a a2")

# Each with a server of its own: one serves one connection.
connections_held() {
    local from to port=$ECHO_PORT
    while read -r from to; do
        lab_spawn "echo-$from-$to" "$to" /usr/bin/python3 "$root/tests/lab/held_connection.py" serve "$port"
        wait_until 5 listens "$to" "$port"
        lab_spawn "held-$from-$to" "$from" /usr/bin/python3 "$root/tests/lab/held_connection.py" \
            hold "$(address "$to" 4)" "$port" 30
        port=$((port + 1))
    done < <(printf '%s\n' "${CONNECTIONS[@]}")
}

connections_are_held() {
    local ends
    for ends in "${CONNECTIONS[@]}"; do
        lab_pid "held-${ends/ /-}" || { cat "$LAB_DIR/logs/held-${ends/ /-}.log" && return 1; }
    done
}

connections_ended() {
    local ends
    for ends in "${CONNECTIONS[@]}"; do
        lab_signal "held-${ends/ /-}" INT
        check "the connection from ${ends/ / to } was held all the time" \
            grep '^held for' "$LAB_DIR/logs/held-${ends/ /-}.log"
    done
}

main "$@"

#!/bin/bash
# How long packets take through a node, as `vswitchctl latency` has it: of each path that they take and of each port
# that they come from, since the daemon's start, of an interval, and of one interval after the other.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# Of a load that ends by itself: pings each way.
readonly PINGS=400

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    by_path
    by_port
    intervals
    starts_anew
    check "node-a accounts for every packet" accounts node-a
    report_end
}

latencies() { ctl node-a latency "$@" --json; }

# load FROM ADDRESS
load() { in_ns "$1" ping -q -n -c "$PINGS" -i 0.002 -w 10 "$2"; }

by_path() {
    local path
    check "a pod pings another of its node" load a1 "$(address a2 4)"
    check "and one of another node" load a1 "$(address b1 4)"
    check "as does the node" pings node-a "$(address a2 4)"
    for path in pod-pod pod-nic nic-pod pod-host host-pod; do
        check "there are latencies of $path" has_path "$path"
    done
    check "percentiles do not fall" latencies_rise
    # Each ping and each answer is a packet, and nothing else is that often.
    check "as many packets are in them as took the path" about pod-pod $((2 * PINGS))
    check "also to another node" about pod-nic "$PINGS"
    check "and from there" about nic-pod "$PINGS"
    check "the table has the paths" finds -E '^pod-pod +[0-9]+ +[0-9]+ +[0-9.]+ ' <<<"$(ctl node-a latency)"
    check "and says of what time it is" finds "since the daemon's start" <<<"$(ctl node-a latency)"
}

has_path() {
    latencies | jq -e --arg path "$1" '
        .since_start and .seconds > 0
        and any(.paths[]; .name == $path and .packets >= .timed and .timed > 0 and .p50_us > 0)'
}

latencies_rise() {
    latencies --ports | jq -e '
        [.paths[], .ports[]] | length > 0
        and all(.[]; [.p50_us, .p90_us, .p99_us, .p99_9_us, .max_us] | . == sort)'
}

# about PATH PACKETS: one that is timed stands for what took other paths in the same turn, too.
about() {
    latencies | jq -e --arg path "$1" --argjson wanted "$2" '
        any(.paths[]; .name == $path and .packets > $wanted * 0.8 and .packets < $wanted * 1.2)'
}

by_port() {
    check_not "ports are not there unless they are asked for" has_port demo/a1
    check "a pod's packets have latencies of their own" has_port demo/a1 --ports
    check "so have those from the NIC" has_port eth0 --ports
    check "the slowest is first" slowest_first
    check "the table has the ports" finds '^FROM PORT ' <<<"$(ctl node-a latency --ports)"
}

has_port() {
    local port=$1
    shift
    latencies "$@" | jq -e --arg port "$port" 'any(.ports[]?; .name == $port and .timed > 0)'
}

slowest_first() { latencies --ports | jq -e '[.ports[].p99_us] | . == (sort | reverse)'; }

intervals() {
    local code=0
    lab_spawn pinger a1 ping -q -n -c 1000 -i 0.01 -w 20 "$(address a2 4)"
    check "an interval has what came within it" within 2
    timeout --preserve-status -s INT 4 "$bin/vswitchctl" --socket "$(node_socket node-a)" \
        latency --watch --interval 1 --json >"$LAB_DIR/watched" || code=$?
    check "one that is watched ends with an interrupt" test "$code" = 0
    check "and showed one after the other" test "$(wc -l <"$LAB_DIR/watched")" -ge 2
    check "each with its packets" jq -es 'all(.[]; any(.paths[]; .name == "pod-pod" and .packets > 0))' "$LAB_DIR/watched"
    lab_stop pinger
    check_not "an interval of nothing is refused" ctl node-a latency --interval 0
}

within() {
    latencies --interval "$1" | jq -e --argjson seconds "$1" '
        (.since_start | not) and .seconds >= $seconds
        and any(.paths[]; .name == "pod-pod" and .packets > 10 and .packets < 1000)'
}

starts_anew() {
    lab_signal vswitchd-node-a KILL
    check "after a kill vswitchd starts" node_start node-a
    check "and has nothing to tell at first" finds '^no packet has passed in the ' <<<"$(ctl node-a latency)"
    check "the node reaches another node's pod" wait_until 5 pings node-a "$(address b1 4)"
    check "which is a path, too" has_path host-nic
}

main "$@"

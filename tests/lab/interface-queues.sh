#!/bin/bash
# Bursts while a worker is kept off its core: pods' interfaces, the host port and the NIC's queues hold what fits, and
# what does not fit is counted and named, by `show drops` and `show ports`, also after the daemon is started anew.
# alone: it holds a worker for seconds
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly BURST=(/usr/bin/python3 "$root/tests/lab/datagram_burst.py")
readonly DATAGRAMS=10000 QUEUE=8192
# Port of nobody.
readonly PORT=7400

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    VSWITCHD_ROLE=supervise node_up node-a vxlan node-b
    node_up node-b vxlan node-a
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    check "a pod's interface holds $QUEUE packets" holds a1 eth0
    check "so does the host port" holds node-a vsw0
    check "at first nothing is lost" loses_nothing node-a
    bursts
    check "the pod's burst did not fit: it is named" names demo/a1 interface-queue-full $((DATAGRAMS - QUEUE))
    check "nor did the node's" names vsw0 interface-queue-full $((DATAGRAMS - QUEUE))
    check "what did not fit and what was received are what was sent" sums demo/a1
    check "nor did the NIC's queue hold what came by it" names_nic
    check "which is told by queue" by_queue
    check "show drops has it in words" finds "queue of the port's interface was full" <<<"$(ctl node-a show drops)"
    check "show ports has a column for it" finds "QUEUE FULL" <<<"$(ctl node-a show ports)"
    check "every packet that the switch received is accounted for" accounts node-a
    check "the other node lost nothing" loses_nothing node-b
    daemon=$(node_daemon node-a)
    kill -KILL "$daemon"
    check "vswitchd starts anew" wait_until 20 is_another
    check "and knows what the pod lost" names demo/a1 interface-queue-full $((DATAGRAMS - QUEUE))
    check "a2 is reached as before" wait_until 5 pings a1 "$(address a2 4)"
    report_end
}

# holds WHERE INTERFACE
holds() { in_ip "$1" link show dev "$2" | finds "qlen $QUEUE"; }

loses_nothing() { ctl "$1" show drops --json | jq -e '.kernel == []'; }

# A debugger holds the worker while a pod, the node and another node's pod send.
bursts() {
    local holder a2 from
    a2=$(address a2 4)
    for from in a1 node-a b1; do check "$from reaches a2" pings "$from" "$a2"; done
    daemon=$(node_daemon node-a)
    /usr/bin/python3 "$root/tests/lab/hold_thread.py" "$daemon" worker-0 &
    holder=$!
    check "the worker stands still" wait_until 5 traced
    for from in a1 node-a; do in_ns "$from" "${BURST[@]}" "$a2" "$PORT" "$DATAGRAMS"; done
    # The other node's worker may be late, too: these fit into its pod's interface.
    in_ns b1 "${BURST[@]}" "$a2" "$PORT" 6000
    # And until it has sent them, this one's has to stand; how many were lost is checked below.
    wait_until 10 names_nic || true
    kill "$holder"
    wait "$holder" || true
    check "and goes on" wait_until 5 pings a1 "$a2"
}

traced() {
    local task
    for task in "/proc/$daemon/task/"*; do
        if [[ $(<"$task/comm") == worker-0 ]]; then
            grep -q '^State:.*tracing stop' "$task/status"
            return
        fi
    done
    return 1
}

is_another() { [[ $(node_daemon node-a) != "$daemon" ]] && ctl node-a status; }

# names PORT REASON LEAST
names() {
    ctl node-a show drops --json |
        jq -e --arg port "$1" --arg reason "$2" --argjson least "$3" \
            'any(.kernel[]; .port == $port and .reason == $reason and .packets >= $least)'
}

# The ring of 2,048 frames held the first.
names_nic() {
    ctl node-a show drops --json | jq -e '[.kernel[] | select(.port | startswith("eth0 queue")) | .packets] | add >= 1000'
}

by_queue() {
    ctl node-a show drops --json | jq -e '
        (.nic_queues | map(.queue)) == [range(.nic_queues | length)]
        and all(.nic_queues[]; .worker == 0 and .rx_invalid_descriptors == 0 and .tx_invalid_descriptors == 0)
        and any(.nic_queues[]; .rx_dropped + .rx_ring_full >= 1000 and .fill_ring_empty > 0)'
}

# Its kernel has sent a few packets besides.
sums() {
    ctl node-a show ports --json | jq -e --arg port "$1" --argjson sent "$DATAGRAMS" '
        .[] | select(.name == $port) | .counters.rx_packets + .counters.queue_full
        | . >= $sent and . < $sent + 100'
}

main "$@"

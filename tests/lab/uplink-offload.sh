#!/bin/bash
# The uplink of kind `offload`: superframes leave a node whole and arrive whole, or cut by a wire; what
# nobody of the cluster sent is dropped by its reason; the NIC stays the node's. The TAP beside it is put
# right when another program takes it down or away, ends with a daemon that is killed, and leaves nothing
# behind. Pods of all kinds of peers over this uplink: offload-*.sh beside this file.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

# The link events tell of a TAP that is gone; of what else is wrong the daemon looks once a second.
readonly RIGHT_SECONDS=3
# Bytes of a frame on average: more than any wire carries, and no more than a full one.
readonly WHOLE=4000 FULL=1514
readonly NODES=(node-a node-b node-d)

main() {
    local lacks
    lacks=$(uplink_lacks offload)
    if [[ -n $lacks ]]; then
        skip "the uplink of kind offload" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    export VSWITCH_UPLINK=offload
    nodes_up
    servers_up a1 b1 d1 node-a outside
    check "status names the kind and its TAP" says node-a 'offload on 1 queue' 'by the TAP vswup0 with 1 queue'
    check "the NIC has no XDP program" has_no_xdp node-a
    matrix a1 b1 node-a
    superframes
    forged
    node_keeps_its_nic
    other_encapsulations
    put_right
    killed
    two_workers
    chosen
    left_nothing
    report_end
}

# node-a and node-d are on one link; between node-a and node-b there is a router.
nodes_up() {
    local node other others
    underlay_up
    for node in "${NODES[@]}"; do underlay_attach_node "$node"; done
    for node in "${NODES[@]}"; do
        others=()
        for other in "${NODES[@]}"; do [[ $other == "$node" ]] || others+=("$other"); done
        node_up "$node" vxlan "${others[@]}"
        pod_plug "$node" "${node#node-}1"
    done
}

superframes() {
    check "a transfer leaves b1's node whole and arrives as a wire cuts it" \
        frames node-b tx "$WHOLE" node-a rx "$FULL" talks a1 b1 4
    in_ns router ethtool -K to-node-a tx on tso on tx-udp_tnl-segmentation on >/dev/null
    check "and whole where nothing cuts it" frames node-d tx "$WHOLE" node-a rx "$WHOLE" talks a1 d1 4
    check "IPv6 of the pods likewise" frames node-d tx "$WHOLE" node-a rx "$WHOLE" talks a1 d1 6
    in_ns router ethtool -K to-node-a tx off tso off tx-udp_tnl-segmentation off >/dev/null
}

# frames SENDER COUNTER LEAST RECEIVER COUNTER LIMIT COMMAND…: while the command runs, frames of the sender
# have LEAST bytes on average, and so have the receiver's; or FULL at most, if that is the limit.
frames() {
    local sender=$1 sent=$2 least=$3 receiver=$4 received=$5 limit=$6 before_s before_r
    shift 6
    before_s=$(counted "$sender" "$sent")
    before_r=$(counted "$receiver" "$received")
    "$@" || return 1
    at_least "$least" "$before_s" "$(counted "$sender" "$sent")" || return 1
    if ((limit == FULL)); then
        if at_least $((FULL + 1)) "$before_r" "$(counted "$receiver" "$received")"; then return 1; fi
    else
        at_least "$limit" "$before_r" "$(counted "$receiver" "$received")"
    fi
}

# counted NODE rx|tx: packets and bytes of its uplink.
counted() {
    ctl "$1" show ports --json |
        jq -r --arg way "$2" '.[] | select(.kind == "uplink") | .counters | "\(.[$way + "_packets"]) \(.[$way + "_bytes"])"'
}

# at_least BYTES BEFORE AFTER: those in between had so many on average.
at_least() {
    local packets bytes packets_before bytes_before
    read -r packets_before bytes_before <<<"$2"
    read -r packets bytes <<<"$3"
    packets=$((packets - packets_before))
    bytes=$((bytes - bytes_before))
    echo "$packets packets of $((packets ? bytes / packets : 0)) bytes on average"
    ((packets > 0 && bytes / packets >= $1))
}

forged() {
    local a=${HOST_ADDRESS[node-a]} b=${HOST_ADDRESS[node-b]} to
    to=$(address a1 4)
    check "of an unknown peer it is dropped so" dropped unknown-peer "${HOST_ADDRESS[outside]}" "$a" "$VNI" 198.18.2.9 "$to"
    check "of an unknown VNI" dropped unknown-vni "$b" "$a" 99 198.18.2.9 "$to"
    check "with another node's pod inside" dropped inner-source-foreign "$b" "$a" "$VNI" 198.18.3.9 "$to"
    check "node-a accounts for every packet" accounts node-a
    check "what finds the TAP's queue full is counted" overflows
}

# A daemon that stands still reads nothing.
overflows() {
    local pid
    pid=$(lab_pid vswitchd-node-a)
    kill -STOP "$pid"
    in_ns router /usr/bin/python3 "$root/tests/lab/forge_vxlan.py" "${HOST_ADDRESS[node-b]}" \
        "${HOST_ADDRESS[node-a]}" "$VNI" 198.18.2.9 "$(address a1 4)" 4000
    kill -CONT "$pid"
    ctl node-a show drops --json | jq -e 'any(.[][]?; .port? == "eth0" and .reason == "interface-queue-full" and .packets > 0)' ||
        { ctl node-a show drops && return 1; }
}

# dropped REASON OUTER_SOURCE OUTER_DESTINATION VNI INNER_SOURCE INNER_DESTINATION
dropped() {
    local reason=$1 before
    shift
    before=$(drops "$reason")
    in_ns router /usr/bin/python3 "$root/tests/lab/forge_vxlan.py" "$@"
    wait_until 3 more_drops "$reason" "$before"
}

drops() {
    ctl node-a show drops --json | jq --arg reason "$1" '[.reasons[] | select(.reason == $reason).packets] | add // 0'
}

more_drops() { (($(drops "$1") > $2)); }

node_keeps_its_nic() {
    local node=${HOST_ADDRESS[node-a]}
    check "the node is pinged from outside" pings outside "$node"
    check "its TCP is its own" sees outside "$node" "${HOST_ADDRESS[outside]} $node"
    check "a whole file from it" transfers outside "$node"
    check "nothing of that came to the daemon" test "$(drops not-for-us)" = 0
}

other_encapsulations() {
    local node mode
    for mode in ipip direct; do
        if [[ $mode == direct ]]; then
            for node in "${NODES[@]}"; do underlay_route_pods "$node"; done
        fi
        for node in "${NODES[@]}"; do
            node_overlay "$node" "encapsulation = \"$mode\"" && node_adjust "$node"
        done
        matrix a1 b1 node-a
    done
    in_ns router ethtool -K to-node-a tx on tso on >/dev/null
    check "without encapsulation superframes pass whole too" \
        frames node-b tx "$WHOLE" node-a rx "$WHOLE" talks a1 b1 4
    in_ns router ethtool -K to-node-a tx off tso off >/dev/null
    for node in "${NODES[@]}"; do
        node_overlay "$node" 'encapsulation = "vxlan"' && node_adjust "$node"
    done
    check "and back to VXLAN" until_deadline "$RIGHT_SECONDS" talks a1 b1 4
}

put_right() {
    in_ip node-a link delete vswup0
    check "the TAP deleted: put right" until_deadline "$RIGHT_SECONDS" pings a1 "$(address b1 4)"
    check "and TCP passes both ways" talks b1 a1 4
    check "and it is counted" repaired
    in_ip node-a link set vswup0 down
    check "the TAP down: put right" until_deadline "$RIGHT_SECONDS" pings b1 "$(address a1 4)"
    check "and TCP passes both ways" talks a1 b1 4
    check "nothing needs attention" no_attention
}

repaired() {
    ctl node-a status --json |
        jq -e 'any(.repairs[]; .part == "the uplink'\''s TAP with its programs of tc" and .count > 0)'
}

no_attention() { ctl node-a status --json | jq -e '[.warnings[] | select(contains("uplink"))] == []'; }

killed() {
    lab_signal vswitchd-node-a KILL
    check "killed: its TAP ends with it" wait_until 3 has_no_tap node-a
    check "and the node keeps its NIC" pings outside "${HOST_ADDRESS[node-a]}"
    check "the next daemon starts" started
    check "and pods reach one another" until_deadline "$RIGHT_SECONDS" talks a1 b1 4
    check "both ways" talks b1 a1 6
}

# No service manager keeps the pods' descriptors here.
started() { node_start node-a && node_adjust node-a; }

# Each of two workers has a queue of the TAP, whatever the NIC has.
two_workers() {
    local cores
    cores="$(allowed_cpu 0), $(allowed_cpu 1)"
    if [[ ${cores%,*} == "${cores#*, }" ]]; then
        skip "two workers, each with a queue of the TAP" "this process may run on one CPU only"
        return
    fi
    lab_signal vswitchd-node-a TERM
    sed -i "s|^cores = .*|cores = [$cores]|" "$(node_dir node-a)/vswitch.toml"
    started
    check "two workers have a queue each" workers_have '[[0], [1]]' '["offload", "offload"]'
    pod_plug node-a a2
    servers_up a2
    matrix a1 a2 b1
}

workers_have() {
    ctl node-a status --json |
        jq -e --argjson queues "$1" --argjson by "$2" '[.workers[].queues] == $queues and [.workers[].sends_by] == $by'
}

# A veth has no zero-copy.
chosen() {
    lab_signal vswitchd-node-a TERM
    sed -i 's|^kind = .*|kind = "auto"|' "$(node_dir node-a)/vswitch.toml"
    check "auto starts" started
    check "it chose offload, and says why" says node-a 'offload on 2 queue' 'offload, as AF_XDP would copy each frame'
    check "and left no XDP program" has_no_xdp node-a
    check "pods reach one another" talks a1 b1 4
}

# says NODE WORD…: its status, the choices included.
says() {
    local node=$1 text word
    shift
    text=$(ctl "$node" status)
    for word in "$@"; do finds "$word" <<<"$text" || { echo "$text" && return 1; }; done
}

left_nothing() {
    node_drain node-a
    check "drained, no TAP is left" has_no_tap node-a
    lab_spawn catcher node-a /usr/bin/python3 -c \
        'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 4789)); print(s.recv(2048), flush=True)'
    wait_until 5 hears node-a 4789
    in_ns router /usr/bin/python3 "$root/tests/lab/forge_vxlan.py" "${HOST_ADDRESS[node-b]}" \
        "${HOST_ADDRESS[node-a]}" "$VNI" 198.18.2.9 "$(address a1 4)"
    check "and the VXLAN port is the kernel's again" wait_until 3 lab_gone catcher
}

has_no_tap() { ! in_ip "$1" link show | finds vswup; }

has_no_xdp() { ! in_ip "$1" link show dev eth0 | finds prog/xdp; }

main "$@"

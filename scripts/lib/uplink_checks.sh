# shellcheck shell=bash
# What is asked of an uplink whatever its kind, of three nodes: superframes, packets that nobody of the cluster
# sent, the NIC that stays the node's, other encapsulations, two workers. Needs `root`; sourced after all.sh.

# The kernel tells of some changes; of what else is wrong the daemon looks once a second.
readonly RIGHT_SECONDS=3
# Bytes of a frame on average: more than any wire carries, and no more than a full one.
readonly WHOLE=4000 FULL=1514
readonly NODES=(node-a node-b node-d)

# node-a and node-d are on one link; between node-a and node-b there is a router.
uplink_nodes_up() {
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

# overflows REASON: a daemon that stands still reads nothing.
overflows() {
    local pid
    pid=$(lab_pid vswitchd-node-a)
    kill -STOP "$pid"
    in_ns router /usr/bin/python3 "${root:?}/tests/lab/forge_vxlan.py" "${HOST_ADDRESS[node-b]}" \
        "${HOST_ADDRESS[node-a]}" "$VNI" 198.18.2.9 "$(address a1 4)" 8000
    kill -CONT "$pid"
    ctl node-a show drops --json |
        jq -e --arg reason "$1" 'any(.kernel[]; (.port | startswith("eth0")) and .reason == $reason and .packets > 0)' ||
        { ctl node-a show drops && return 1; }
}

# dropped REASON OUTER_SOURCE OUTER_DESTINATION VNI INNER_SOURCE INNER_DESTINATION [COUNT [INNER_MAC]]
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

# No service manager keeps the pods' descriptors here.
started() { node_start node-a && node_adjust node-a; }

workers_have() {
    ctl node-a status --json |
        jq -e --argjson queues "$1" --argjson by "$2" '[.workers[].queues] == $queues and [.workers[].sends_by] == $by'
}

# says NODE WORD…: its status, the choices included.
says() {
    local node=$1 text word
    shift
    text=$(ctl "$node" status)
    for word in "$@"; do finds "$word" <<<"$text" || { echo "$text" && return 1; }; done
}

forged() {
    local a=${HOST_ADDRESS[node-a]} b=${HOST_ADDRESS[node-b]} to
    to=$(address a1 4)
    check "of an unknown peer it is dropped so" dropped unknown-peer "${HOST_ADDRESS[outside]}" "$a" "$VNI" 198.18.2.9 "$to"
    check "of an unknown VNI" dropped unknown-vni "$b" "$a" 99 198.18.2.9 "$to"
    check "for the MAC of no VTEP of the node" dropped destination-mac-foreign "$b" "$a" "$VNI" 198.18.2.9 "$to" 1 02:00:00:00:00:99
    check "with another node's pod inside" dropped inner-source-foreign "$b" "$a" "$VNI" 198.18.3.9 "$to"
    check "node-a accounts for every packet" accounts node-a
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

# two_workers KIND: each has a queue, whatever the NIC has.
two_workers() {
    local cores
    cores="$(allowed_cpu 0), $(allowed_cpu 1)"
    if [[ ${cores%,*} == "${cores#*, }" ]]; then
        skip "two workers, each with a queue" "this process may run on one CPU only"
        return
    fi
    lab_signal vswitchd-node-a TERM
    sed -i "s|^cores = .*|cores = [$cores]|" "$(node_dir node-a)/vswitch.toml"
    started
    check "two workers have a queue each" workers_have '[[0], [1]]' "[\"$1\", \"$1\"]"
    pod_plug node-a a2
    servers_up a2
    matrix a1 a2 b1
}

no_attention() { ctl node-a status --json | jq -e '[.warnings[] | select(contains("uplink"))] == []'; }

has_no_xdp() { ! in_ip "$1" link show dev eth0 | finds prog/xdp; }

# A daemon that has ended leaves the VXLAN port to the node's own programs.
port_is_the_kernels() {
    lab_spawn catcher node-a /usr/bin/python3 -c \
        'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 4789)); print(s.recv(2048), flush=True)'
    wait_until 5 hears node-a 4789
    in_ns router /usr/bin/python3 "$root/tests/lab/forge_vxlan.py" "${HOST_ADDRESS[node-b]}" \
        "${HOST_ADDRESS[node-a]}" "$VNI" 198.18.2.9 "$(address a1 4)"
    check "and the VXLAN port is the kernel's again" wait_until 3 lab_gone catcher
}

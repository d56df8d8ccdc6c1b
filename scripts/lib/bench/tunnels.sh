# shellcheck shell=bash
# B5, B6, B7: TCP by VXLAN from a pod to the wire and from the wire to a pod; the wire's other end is node-c,
# which has the kernel's VXLAN. B24, B25: TCP and exchanges where both ends are ours, by VXLAN, IPIP and
# directly. Sourced after same_node.sh and kernel_wire.sh.
#
# node-a and node-b are ours, the worker of each on the first CPU and on the other one. node-k is the kernel
# that is compared: by VXLAN, whose superframes are cut before the wire or go over it whole, or by routes alone.
# B5, B6 and B7 differ by our nodes' uplink: B5 has one that hands superframes to the kernel, B24 and B25 are
# measured with either, and B24 with the kind af_packet, too.

bench_tunnels() {
    local kind
    tunnels_up
    for kind in af_xdp offload af_packet; do
        # shellcheck disable=SC2046
        wants $(rows_of_uplink "$kind") || continue
        uplink_chosen "$kind" || continue
        if [[ $kind == af_packet ]]; then
            by_packet_sockets
            continue
        fi
        to_the_wire "$kind"
        from_the_wire "$kind"
        if wants B24 B25; then between_ours "$kind"; fi
    done
}

rows_of_uplink() {
    case $1 in
        af_xdp) echo B6 B7 B24 B25 ;;
        offload) echo B5 B24 B25 ;;
        af_packet) echo B24 ;;
    esac
}

# Pods a1 and b1 of ours, k1 and c1 of the kernel's.
tunnels_up() {
    local node
    underlay_up
    for node in node-a node-b; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    done
    kernel_wire_up
    # For what goes without a tunnel.
    for node in node-a node-b node-k node-c; do underlay_route_pods "$node"; done
    for node in node-a node-b; do
        receive_as_a_nic "$node"
        tunnel_config "$node" >"$(node_dir "$node")/vswitch.toml"
        node_start "$node"
        pod_plug "$node" "${node#node-}1"
    done
}

# tunnel_config NODE [KIND]: KIND is that of the uplink. Pods have one MTU, whatever the encapsulation.
tunnel_config() {
    local peer=node-b
    [[ $1 == node-a ]] || peer="node-a"
    node_config "$1" vxlan "$peer" node-c | sed "s/^vni = .*/&\npod_mtu = ${POD_MTU[vxlan]}/${2:+; s/^\[uplink\]/&\nkind = \"$2\"/}"
}

# uplink_chosen KIND: our nodes have it; fails, and tells why, if this vswitchd has none of that kind. One that
# knows no kinds has af_xdp.
uplink_chosen() {
    local kind=$1 node file reason
    for node in node-a node-b; do
        file=$(node_dir "$node")/vswitch.toml
        tunnel_config "$node" "$kind" >"$file.new"
        if ! reason=$(in_ns "$node" "$bin/vswitchd" --check --config "$file.new" 2>&1); then
            if [[ $kind != af_xdp ]]; then
                leave_out "uplink $kind ($(rows_of_uplink "$kind"))" "this vswitchd has none: $(tail -n 1 <<<"${reason##*"$file.new":}")"
                return 1
            fi
            tunnel_config "$node" >"$file.new"
        fi
        if ! cmp -s "$file" "$file.new"; then
            mv "$file.new" "$file"
            bench_restart "$node"
        fi
    done
}

# tunnel_pods SIDE: where the side's bytes come from, and where they go.
tunnel_pods() { read -r from to <<<"${wire_pods[${1%%-*}]}"; }

# to_the_wire KIND
to_the_wire() {
    wants "$([[ $1 == offload ]] && echo B5 || echo B6)" || return 0
    local -A wire_pods=([vswitchd]='a1 c1' [kernel]='k1 c1')
    wire_places "out-$1" "$1"
}

# from_the_wire KIND
from_the_wire() {
    wants "$([[ $1 == offload ]] && echo B5 || echo B7)" || return 0
    local -A wire_pods=([vswitchd]='c1 a1' [kernel]='c1 k1')
    wire_places "in-$1" "$1"
}

# wire_places MEASUREMENT KIND: superframes are handed over whole by an uplink that is compared with a kernel
# that does so.
wire_places() {
    local place sides=(vswitchd-cut kernel-cut kernel-uncut)
    [[ $2 != offload ]] || sides=(vswitchd-uncut kernel-uncut)
    for place in apart together; do
        bench_place "$place"
        tunnel_serve "$STREAM_PORT" sink "${sides[@]}"
        bench_measure "$1-$place" tunnel_stream "${sides[@]}"
    done
}

# between_ours KIND: both ends ours; the encapsulations one after the other, beside what the kernel has.
between_ours() {
    local -A wire_pods=([vswitchd]='a1 b1' [kernel]='k1 c1')
    local mode place whole=cut sides
    [[ $1 != offload ]] || whole=uncut
    for mode in vxlan ipip direct; do
        overlay_becomes "$mode"
        sides=("vswitchd-$whole" "kernel-$whole")
        [[ $mode != direct ]] || sides=("vswitchd-$whole" "kernel-routed-$whole")
        for place in apart together; do
            bench_place "$place"
            if wants B24; then
                tunnel_serve "$STREAM_PORT" sink "${sides[@]}"
                bench_measure "both-$1-$mode-$place" tunnel_stream "${sides[@]}"
            fi
            if wants B25; then
                tunnel_serve "$EXCHANGE_PORT" echo "${sides[@]}"
                bench_measure "both-exchange-$1-$mode-$place" tunnel_exchange "${sides[@]}"
            fi
        done
    done
}

# Both ends ours by the kind `af_packet`: VXLAN, which the worker cuts, and no tunnel, which passes whole.
by_packet_sockets() {
    local -A wire_pods=([vswitchd]='a1 b1' [kernel]='k1 c1')
    local place
    for place in apart together; do
        packet_sockets vxlan "$place" vswitchd-cut kernel-cut
        packet_sockets direct "$place" vswitchd-uncut kernel-routed-uncut
    done
}

# packet_sockets MODE PLACE SIDE…
packet_sockets() {
    local mode=$1 place=$2
    shift 2
    overlay_becomes "$mode"
    bench_place "$place"
    tunnel_serve "$STREAM_PORT" sink "$@"
    bench_measure "both-af_packet-$mode-$place" tunnel_stream "$@"
}

# overlay_becomes MODE: of node-a and node-b.
overlay_becomes() {
    local node
    for node in node-a node-b; do
        node_overlay "$node" "encapsulation = \"$1\"" "pod_mtu = ${POD_MTU[vxlan]}"
    done
}

# tunnel_serve PORT COMMAND SIDE…: in each pod to which bytes of a side go.
tunnel_serve() {
    local port=$1 command=$2 side from to
    shift 2
    for side in "$@"; do
        tunnel_pods "$side"
        bench_listener "$to" "$port" "$command"
    done
}

# tunnel_stream SIDE: bits a second, bytes, segments sent again. node-c sends to both sides alike, and so in order.
tunnel_stream() {
    local from to
    kernel_way "$1"
    tunnel_pods "$1"
    if [[ $from == c1 ]]; then send_in_order node-c "$client_cpu"; else send_in_order node-c; fi
    bench_pinned "$client_cpu" "$from" "$load" stream --to "$(address "$to" 4):$STREAM_PORT" --seconds "$bench_seconds" |
        stream_figures
}

# tunnel_exchange SIDE: microseconds.
tunnel_exchange() {
    local from to
    kernel_way "$1"
    tunnel_pods "$1"
    bench_pinned "$client_cpu" "$from" "$load" ask --to "$(address "$to" 4):$EXCHANGE_PORT" --seconds "$bench_seconds" |
        jq -ce '{p50_us, p99_us}'
}

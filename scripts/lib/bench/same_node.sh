# shellcheck shell=bash
# B1, B2: TCP between two pods of a node, beside a kernel's bridge with a veth for each pod, offloads as the
# kernel has them. B3, B4: beside Open vSwitch with and without offloads. B13, B14: requests and responses.
# B23: new connections. B8, B9, B15, B16: datagrams. Sourced after ovs.sh and datagrams.sh.

readonly STREAM_PORT=5001 EXCHANGE_PORT=5002 CONNECT_PORT=5003

bench_same_node() {
    local pods=(p1 p2)
    ! wants B15 || pods+=(p3 p4)
    bench_ours "${pods[@]}"
    bench_bridge bridge "${#pods[@]}"
    if wants B3; then bench_ovs ovs-tso 2; fi
    if wants B4 B9; then bench_ovs ovs 2; fi
    streams_between_pods
    exchanges_between_pods vswitchd bridge
    connections_between_pods vswitchd bridge
    datagrams_between_pods
}

# One stream beside all that are wanted; what differs by place and by their number beside the bridge.
streams_between_pods() {
    local place side with_bridge sides
    for place in apart swapped together free; do
        with_bridge=$([[ $place == together ]] && echo B2 || echo B1)
        sides=()
        if wants "$with_bridge"; then sides+=(bridge); fi
        if [[ $place == apart || $place == together ]]; then
            if wants B3; then sides+=(ovs-tso); fi
            if wants B4; then sides+=(ovs); fi
        fi
        ((${#sides[@]})) || continue
        bench_place "$place"
        for side in vswitchd "${sides[@]}"; do bench_serve "$side" "$STREAM_PORT" sink; done
        bench_measure "tcp-1-$place" one_stream vswitchd "${sides[@]}"
        ! wants "$with_bridge" || bench_measure "tcp-8-$place" eight_streams vswitchd bridge
    done
}

# one_stream SIDE: bits a second, bytes, segments sent again.
one_stream() { streams "$1" 1; }
eight_streams() { streams "$1" 8; }

# streams SIDE COUNT
streams() {
    bench_client "$1" stream --to "$(bench_second "$1" "$STREAM_PORT")" --streams "$2" --seconds "$bench_seconds" |
        stream_figures
}

# stream_figures: what `stream` prints becomes these.
stream_figures() {
    jq -ce 'if .bytes > 0 then {value: (.bytes * 8 / .seconds), bytes, retransmits} else error("nothing arrived") end'
}

# exchanges_between_pods SIDE…
exchanges_between_pods() {
    local place side
    for place in apart together free; do
        wants "$([[ $place == together ]] && echo B14 || echo B13)" || continue
        bench_place "$place"
        for side in "$@"; do bench_serve "$side" "$EXCHANGE_PORT" echo; done
        bench_measure "exchange-$place" exchanges "$@"
    done
}

# exchanges SIDE: microseconds.
exchanges() {
    bench_client "$1" ask --to "$(bench_second "$1" "$EXCHANGE_PORT")" --seconds "$bench_seconds" | jq -ce '{p50_us, p99_us}'
}

# connections_between_pods SIDE…
connections_between_pods() {
    local place side
    wants B23 || return 0
    for place in apart together free; do
        bench_place "$place"
        for side in "$@"; do bench_serve "$side" "$CONNECT_PORT" serve; done
        bench_measure "connect-1-$place" one_client "$@"
        bench_measure "connect-16-$place" many_clients "$@"
    done
}

# one_client SIDE: connections a second.
one_client() { bench_connections "$1" "$(address "$(bench_pod "$1" 2)" 4)" "$CONNECT_PORT" 1 1; }
many_clients() { bench_connections "$1" "$(address "$(bench_pod "$1" 2)" 4)" "$CONNECT_PORT" 1 16; }

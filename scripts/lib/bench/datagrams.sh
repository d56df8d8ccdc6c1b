# shellcheck shell=bash
# Datagrams of 64 bytes, as a frame with its check sequence is long, from one pod to another. B8, B9: the rate
# of which half a percent is lost, and what arrives of a flood; B16: what arrives of bursts. The receiver's
# kernel drops all of these at its interface: what the way between takes is measured, and not what reads them.
# B15: how late a victim's datagrams reach a socket while two other pods of the node have a flood between
# them. Sourced after peers.sh.

# As rules.py has them.
readonly FLOOD_PORT=20000 FLOOD_FLOWS=1000
readonly BURST=512 BURST_PAUSE_MS=20
readonly VICTIM_PORT=5004 VICTIM_RATE=5000

# datagrams_between_pods: pods 3 and 4 of ours and of the bridge are there if B15 is wanted.
datagrams_between_pods() {
    local side sides=(vswitchd bridge)
    ! wants B9 || sides+=(ovs)
    if wants B8 B9 B16; then
        bench_place together
        for side in "${sides[@]}"; do flood_sink "$(bench_pod "$side" 2)"; done
        ! wants B8 B9 || bench_measure pdr loss_bound_rate "${sides[@]}"
        ! wants B8 B9 || bench_measure flood flood "${sides[@]}"
        ! wants B16 || bench_measure bursts bursts vswitchd bridge
    fi
    wants B15 || return 0
    bench_place together
    for side in vswitchd bridge; do flood_sink "$(bench_pod "$side" 4)"; done
    bench_measure victim-ordinary victim_ordinary vswitchd bridge
    bench_measure victim-fifo victim_fifo vswitchd bridge
}

# flood_sink POD: what arrives is counted by the pod's interface and goes no further.
flood_sink() {
    in_ns "$1" nft -f - <<'NFT'
table netdev sink {
    chain ingress {
        type filter hook ingress device eth0 priority 0
        udp dport 20000-20999 drop
    }
}
NFT
}

# flood SIDE: datagrams a second that arrive.
flood() {
    local pod before answer
    pod=$(bench_pod "$1" 2)
    before=$(received "$pod")
    answer=$(bench_client "$1" datagrams --to "$(bench_second "$1" "$FLOOD_PORT")" --flows "$FLOOD_FLOWS" --seconds "$bench_seconds")
    jq -e --argjson frames "$(($(received "$pod") - before))" \
        'if $frames < 1000 then error("nothing arrived") else $frames / .seconds end' <<<"$answer"
}

# loss_bound_rate SIDE
loss_bound_rate() {
    bench_python pdr "$(ns "$(bench_pod "$1" 2)")" "$(trial_seconds)" \
        nsenter --net="/run/netns/$(ns "$(bench_pod "$1" 1)")" -- taskset -c "$client_cpu" "$load" datagrams \
        --to "$(bench_second "$1" "$FLOOD_PORT")" --flows "$FLOOD_FLOWS"
}

# Of each of a search's trials; a search has up to sixteen.
trial_seconds() { jq -n "$bench_seconds / 3"; }

# bursts SIDE: hundredths of them that arrive.
bursts() {
    local pod before answer
    pod=$(bench_pod "$1" 2)
    before=$(received "$pod")
    answer=$(bench_client "$1" datagrams --to "$(bench_second "$1" "$FLOOD_PORT")" --flows 64 --burst "$BURST" \
        --pause-ms "$BURST_PAUSE_MS" --seconds "$bench_seconds")
    jq -e --argjson frames "$(($(received "$pod") - before))" \
        'if .sent > 0 then ([$frames, .sent] | min) / .sent * 100 else error("nothing was sent") end' <<<"$answer"
}

victim_ordinary() { victim "$1"; }
# The kernel forwards in the context of the sending process: the victim's is not to wait for the flood's to be scheduled.
victim_fifo() { victim "$1" chrt -f 10; }

# victim SIDE [UNDER…]: how late its datagrams are, microseconds, and hundredths that are lost.
victim() {
    local side=$1 heard=$LAB_DIR/heard
    shift
    : >"$heard"
    lab_spawn "flood-$side" "$(bench_pod "$side" 3)" taskset -c "$other_cpu" "$load" datagrams \
        --to "$(address "$(bench_pod "$side" 4)" 4):$FLOOD_PORT" --flows "$FLOOD_FLOWS" --seconds 600
    lateness_heard "$side" "$@"
    lab_stop "flood-$side"
    jq -ce '{p50_us, p99_us, p999_us, lost: ((1 - .received / .sent) * 100)}' "$heard"
}

# lateness_heard SIDE [UNDER…]: of a schedule from the side's first pod to the second; what is heard is in `heard`.
lateness_heard() {
    local side=$1 hearing
    shift
    hear_start "$(bench_pod "$side" 2)" "$@"
    bench_pinned "$client_cpu" "$(bench_pod "$side" 1)" "$@" "$load" paced \
        --to "$(bench_second "$side" "$VICTIM_PORT")" --rate "$VICTIM_RATE" --seconds "$bench_seconds" >/dev/null
    wait "$hearing"
}

# hear_start POD [UNDER…]: a receiver in the background, which tells the file `heard`; sets `hearing`.
hear_start() {
    local pod=$1
    shift
    bench_pinned "$server_cpu" "$pod" "$@" "$load" hear --at "0.0.0.0:$VICTIM_PORT" >"$heard" &
    hearing=$!
    wait_until 10 hears "$pod"
}

# hears POD
hears() { [[ -n $(in_ns "$1" ss -Hlun "sport = :$VICTIM_PORT") ]]; }

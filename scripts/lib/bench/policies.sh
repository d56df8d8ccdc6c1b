# shellcheck shell=bash
# B11, B12: what a thousand and five thousand rules of a pod cost its packets, and its new connections. The
# last rule is the one that matches. Sourced after peers.sh.
#
# nft-stateless goes through its rules for each packet; nft-linear lets what is established pass first, as
# firewalls of pods do; nft-sets has all of the rules in one set beside that.

readonly POLICY_SIDES=(vswitchd nft-stateless nft-linear nft-sets)
# As rules.py has them.
readonly FLOOD_PORT=20000 FLOOD_FLOWS=1000 CONNECTION_PORT=4900

bench_policies() {
    local count side place
    bench_ours p1 p2
    for side in "${POLICY_SIDES[@]:1}"; do bench_kernel "$side"; done
    for side in "${POLICY_SIDES[@]}"; do flood_sink "$side"; done
    for count in 1000 5000; do
        progress "$count rules"
        for side in "${POLICY_SIDES[@]}"; do
            # shellcheck disable=SC2046
            bench_rules policies "$side" "$side" "$count" $(bench_ends "$side")
        done
        if [[ " $* " == *" B11 "* ]]; then
            bench_measure "flood-$count" flood vswitchd nft-stateless nft-linear
        fi
        [[ " $* " == *" B12 "* ]] || continue
        for place in apart together; do
            bench_place "$place"
            for side in vswitchd nft-linear nft-sets; do bench_serve "$side" "$server_cpu" "$CONNECTION_PORT"; done
            bench_measure "connections-$count-$place" policy_connections vswitchd nft-linear nft-sets
        done
    done
}

# bench_place PLACE: sets server_cpu. Apart from the clients, the server shares the worker's CPU.
bench_place() {
    case $1 in
        apart) server_cpu=$worker_cpu ;;
        together) server_cpu=$other_cpu ;;
    esac
}

# flood_sink SIDE: what arrives is counted by the pod's interface and goes no further.
flood_sink() {
    in_ns "$(bench_pod "$1" 2)" nft -f - <<'NFT'
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
    answer=$(bench_pinned "$other_cpu" "$(bench_pod "$1" 1)" "$load" datagrams \
        --to "$(address "$pod" 4):$FLOOD_PORT" --flows "$FLOOD_FLOWS" --seconds "$bench_seconds")
    jq -e --argjson frames "$(($(received "$pod") - before))" \
        'if $frames < 1000 then error("nothing arrived") else $frames / .seconds end' <<<"$answer"
}

# policy_connections SIDE
policy_connections() { bench_connections "$1" "$(address "$(bench_pod "$1" 2)" 4)" "$CONNECTION_PORT" 1; }

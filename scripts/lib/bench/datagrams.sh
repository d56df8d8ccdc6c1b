# shellcheck shell=bash
# Datagrams of 64 bytes, as a frame with its check sequence is long, from one pod to another whose kernel
# drops them at its interface: what the way between takes is measured, and not what reads them. Sourced
# after peers.sh.

# As rules.py has them.
readonly FLOOD_PORT=20000 FLOOD_FLOWS=1000

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
    answer=$(bench_client "$1" datagrams --to "$(bench_second "$1" "$FLOOD_PORT")" --flows "$FLOOD_FLOWS" --seconds "$bench_seconds")
    jq -e --argjson frames "$(($(received "$pod") - before))" \
        'if $frames < 1000 then error("nothing arrived") else $frames / .seconds end' <<<"$answer"
}

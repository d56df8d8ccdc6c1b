# shellcheck shell=bash
# B11, B12: what a thousand and five thousand rules of a pod cost its packets, and its new connections. The
# last rule is the one that matches. Sourced after datagrams.sh.
#
# nft-stateless goes through its rules for each packet; nft-linear lets what is established pass first, as
# firewalls of pods do; nft-sets has all of the rules in one set beside that.

readonly POLICY_SIDES=(vswitchd nft-stateless nft-linear nft-sets)
# As rules.py has them.
readonly CONNECTION_PORT=4900

bench_policies() {
    local count side place
    bench_ours p1 p2
    for side in "${POLICY_SIDES[@]:1}"; do bench_kernel "$side"; done
    for side in "${POLICY_SIDES[@]}"; do flood_sink "$(bench_pod "$side" 2)"; done
    for count in 1000 5000; do
        progress "$count rules"
        for side in "${POLICY_SIDES[@]}"; do
            # shellcheck disable=SC2046
            bench_rules policies "$side" "$side" "$count" $(bench_ends "$side")
        done
        if wants B11; then
            bench_place together
            bench_measure "flood-$count" flood vswitchd nft-stateless nft-linear
        fi
        wants B12 || continue
        for place in apart together; do
            bench_place "$place"
            for side in vswitchd nft-linear nft-sets; do bench_serve "$side" "$CONNECTION_PORT" serve; done
            bench_measure "connections-$count-$place" policy_connections vswitchd nft-linear nft-sets
        done
    done
}

# policy_connections SIDE
policy_connections() { bench_connections "$1" "$(address "$(bench_pod "$1" 2)" 4)" "$CONNECTION_PORT" 1; }

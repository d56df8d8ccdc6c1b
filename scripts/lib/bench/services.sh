# shellcheck shell=bash
# B21, B22: new connections through ten thousand Services of two backends each, of a hundred, and how long until one of
# these whose backends change gives connections to what is left. Sourced after policies.sh.
#
# The peers have kube-proxy's rules in the structure of its nftables and iptables modes. A change is what
# kube-proxy executes for it, and what the agent tells the daemon: neither has to notice it first.

readonly SERVICES=10000 SERVICE_SIDES=(vswitchd kube-nft kube-iptables)
# As rules.py has them.
readonly FIRST_SERVICE=198.19.0.0 SERVICE_PORT=80 FIRST_BACKEND=4901 BACKENDS=100

bench_services() {
    local side place
    bench_ours p1 p2
    for side in "${SERVICE_SIDES[@]:1}"; do bench_kernel "$side"; done
    for side in "${SERVICE_SIDES[@]}"; do
        progress "$SERVICES Services: $side"
        services_told services "$side"
    done
    for place in apart together; do
        bench_place "$place"
        for side in "${SERVICE_SIDES[@]}"; do
            bench_serve "$side" "$FIRST_BACKEND" serve --ports "$BACKENDS"
        done
        ! wants B21 || bench_measure "services-$place" service_connections "${SERVICE_SIDES[@]}"
        [[ $place != together ]] || ! wants B22 || bench_measure in-force in_force "${SERVICE_SIDES[@]}"
    done
}

# services_told WHAT SIDE
services_told() { bench_rules "$1" "$2" "$2" "$SERVICES" "$(address "$(bench_pod "$2" 2)" 4)"; }

# service_connections SIDE
service_connections() { bench_connections "$1" "$FIRST_SERVICE" "$SERVICE_PORT" "$SERVICES"; }

# in_force SIDE: milliseconds from the change until connections notice it; then all is as it was.
in_force() {
    local side=$1 file=$LAB_DIR/moved.$1 change
    /usr/bin/python3 "$root/scripts/lib/bench/rules.py" moved "$side" "$SERVICES" \
        "$(address "$(bench_pod "$side" 2)" 4)" >"$file"
    case $side in
        vswitchd) change=(ask "$(node_socket node-a)" sync-services "$file") ;;
        kube-nft) change=(run nsenter --net="/run/netns/$(ns "$side")" -- nft -f "$file") ;;
        kube-iptables)
            change=(run nsenter --net="/run/netns/$(ns "$side")" -- iptables-legacy-restore --noflush "$file")
            ;;
    esac
    # The middle one of the Services.
    bench_pinned "$client_cpu" "$(bench_pod "$side" 1)" /usr/bin/python3 "$root/scripts/lib/bench/in_force.py" \
        198.19.19.136 "$SERVICE_PORT" b "${change[@]}"
    services_told services "$side"
}

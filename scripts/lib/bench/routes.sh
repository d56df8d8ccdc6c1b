# shellcheck shell=bash
# B10: 64-byte datagrams through a node with a million routes, beside a node with ten. B19: how fast as many are
# taken from one source of peers, what memory each takes, and for how long a datagram waits meanwhile, beside
# the kernel's own routes. Sourced after datagrams.sh.
#
# IPv4 has no more addresses in the network that is kept for benchmarks: 126,976 of the routes are of IPv4,
# /32 each, which the datagrams look up; the others are of IPv6, /64 each.

readonly ROUTES=1000000 ROUTES_OF_KERNEL=100000

bench_routes() {
    local side
    routes_up
    if wants B19; then
        lab_add_ns kernel
        in_ip kernel link add eth0 type veth peer name other0
        in_ip kernel address add 198.51.100.20/25 dev eth0
        in_ip kernel link set eth0 up
        in_ip kernel link set other0 up
        bench_place together
        bench_measure fib fib_taken vswitchd kernel
        bench_measure fib-wait fib_wait vswitchd idle
    fi
    wants B10 || return 0
    progress "$ROUTES routes"
    routes_taken node-a "$ROUTES" >/dev/null
    routes_taken node-d 10 >/dev/null
    bench_place together
    for side in vswitchd few; do flood_sink "$(bench_pod "$side" 2)"; done
    bench_measure many-routes flood vswitchd few
}

# node-a is to have a million routes, node-d ten. Both workers have the first CPU; one at a time has work.
routes_up() {
    local node
    bench_ours
    underlay_attach_node node-d
    mkdir -p "$(node_dir node-d)/state" "$(node_dir node-d)/pods"
    lab_stop vswitchd-node-a
    # The peers' addresses are of IPv6, whose VXLAN takes 70 bytes: there are too few of IPv4 beside the pods'.
    in_ip router -6 address add 2001:db8:51:1::1/64 dev lan-a
    for node in node-a node-d; do
        in_ip "$node" -6 address add "2001:db8:51:1::${node#node-}/64" dev eth0
        in_ip "$node" -6 route add 2001:db8:51::/64 via 2001:db8:51:1::1
        node_config "$node" vxlan |
            sed "s/^cores = .*/cores = [$worker_cpu]/; s|\"$CLUSTER4\"|\"198.18.0.0/15\"|; s/^vni = .*/&\npod_mtu = 1430/" >"$(node_dir "$node")/vswitch.toml"
        node_start "$node"
    done
    for node in p1 p2; do pod_plug node-a "$node"; done
    for node in few-1 few-2; do pod_plug node-d "$node"; done
}

# routes_taken NODE COUNT: {routes, seconds, bytes}; bytes are those by which the daemon grows.
routes_taken() { bench_python fib daemon "$(node_socket "$1")" "$(lab_pid "vswitchd-$1")" "$2"; }

# fib_taken SIDE: routes a second, and bytes that one takes.
fib_taken() {
    local told
    case $1 in
        vswitchd)
            fib_empty
            told=$(routes_taken node-a "$ROUTES") || return 1
            ;;
        kernel)
            told=$(bench_python fib kernel "$(ns kernel)" "$ROUTES_OF_KERNEL") || return 1
            in_ip kernel -4 route flush root 198.18.0.0/15
            in_ip kernel -6 route flush root fd00:18::/32
            ;;
    esac
    jq -ce '{value: (.routes / .seconds), bytes_each: (.bytes / .routes)}' <<<"$told"
}

# The daemon anew, without them: memory that it had once had would not be counted again.
fib_empty() {
    bench_python fib empty "$(node_socket node-a)"
    bench_restart node-a
}

# fib_wait SIDE: microseconds that a datagram between two pods waits at most while the routes are taken, or
# while nothing is done for so long. The victim has its CPU before all others.
fib_wait() {
    local heard=$LAB_DIR/heard seconds taker
    : >"$heard"
    fib_empty
    # The datagrams last as long as the routes took the time before.
    seconds=$(cat "$LAB_DIR/fib-seconds" 2>/dev/null || echo 20)
    hear_start p2 chrt -f 10
    if [[ $1 == vswitchd ]]; then
        { sleep 0.3 && routes_taken node-a "$ROUTES" >"$LAB_DIR/fib-told"; } &
        taker=$!
    fi
    bench_pinned "$client_cpu" p1 chrt -f 10 "$load" paced --to "$(bench_second vswitchd "$VICTIM_PORT")" \
        --rate "$VICTIM_RATE" --seconds "$seconds" >/dev/null
    wait "$hearing"
    if [[ $1 == vswitchd ]]; then
        wait "$taker" || return 1
        jq '.seconds + 0.5' "$LAB_DIR/fib-told" >"$LAB_DIR/fib-seconds"
    fi
    jq -ce '{value: .max_us, p999_us, lost: (.sent - .received)}' "$heard"
}

# shellcheck shell=bash
# The sides of a benchmark within a node: vswitchd with pods; a kernel that routes between as many, each
# behind a veth of its own, as the reference plugin ptp connects them; and one that bridges between them, as
# the reference plugin bridge does. Sourced after run.sh.
#
# A side's pods are named SIDE-1 and SIDE-2, and their addresses are what `address` tells.

# The pods of each kernel; addresses of another network than that of the daemon's.
readonly BENCH_GATEWAY=198.18.7.1

# bench_ours POD…: node-a with vswitchd and these pods.
bench_ours() {
    local pod
    underlay_up
    underlay_attach_node node-a
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    node_config node-a vxlan | sed "s/^cores = .*/cores = [$worker_cpu]/" >"$(node_dir node-a)/vswitch.toml"
    node_start node-a
    for pod in "$@"; do pod_plug node-a "$pod"; done
}

# bench_restart NODE: its daemon anew, with the configuration that is there. Pods' descriptors went with it.
bench_restart() {
    lab_stop "vswitchd-$1"
    node_start "$1"
    node_adjust "$1" >>"$LAB_DIR/logs/adjust.log" 2>&1
}

# bench_kernel SIDE: a kernel that forwards between two pods.
bench_kernel() {
    local side=$1 number pod
    lab_add_ns "$side"
    # A connection that is over would be tracked for 120 s more: the table, which all namespaces share in
    # size, would be full after some rounds.
    in_ns "$side" sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_tcp_timeout_time_wait=10
    for number in 1 2; do
        pod=$side-$number
        lab_add_ns "$pod"
        in_ip "$side" link add "pod$number" type veth peer name eth0 netns "$(ns "$pod")"
        in_ip "$side" address add "$BENCH_GATEWAY/32" dev "pod$number"
        in_ip "$side" link set "pod$number" up
        in_ip "$side" route add "198.18.7.1$number" dev "pod$number"
        in_ip "$pod" address add "198.18.7.1$number/32" dev eth0
        in_ip "$pod" link set eth0 up
        in_ip "$pod" route add "$BENCH_GATEWAY" dev eth0
        in_ip "$pod" route add default via "$BENCH_GATEWAY"
        printf '198.18.7.1%s\n' "$number" >"$LAB_DIR/addresses/$pod.4"
    done
}

# bench_bridge SIDE COUNT: a kernel's bridge between so many pods, whose MTU is that of vswitchd's.
bench_bridge() {
    local side=$1 number
    lab_add_ns "$side"
    in_ip "$side" link add br0 mtu "${POD_MTU[vxlan]}" type bridge mcast_snooping 0
    in_ip "$side" link set br0 up
    for ((number = 1; number <= $2; number++)); do
        lab_add_ns "$side-$number"
        in_ip "$side" link add "pod$number" mtu "${POD_MTU[vxlan]}" type veth \
            peer name eth0 mtu "${POD_MTU[vxlan]}" netns "$(ns "$side-$number")"
        in_ip "$side" link set "pod$number" master br0 up
        bench_pod_address "$side-$number" "$number"
    done
}

# bench_pod_address POD NUMBER: of a network that it shares with the others of its side.
bench_pod_address() {
    in_ip "$1" address add "198.18.7.1$2/24" dev eth0
    in_ip "$1" link set eth0 up
    printf '198.18.7.1%s\n' "$2" >"$LAB_DIR/addresses/$1.4"
}

# bench_pod SIDE NUMBER: the name of that pod of a side.
bench_pod() {
    case $1 in
        vswitchd) printf 'p%s' "$2" ;;
        *) printf '%s-%s' "$1" "$2" ;;
    esac
}

# bench_ends SIDE: both pods' addresses.
bench_ends() { printf '%s %s' "$(address "$(bench_pod "$1" 1)" 4)" "$(address "$(bench_pod "$1" 2)" 4)"; }

# bench_rules WHAT SIDE KIND COUNT ADDRESS…: puts the rules in force at that side.
bench_rules() {
    local what=$1 side=$2 kind=$3 file=$LAB_DIR/$2.$1
    local count=$4
    shift 4
    /usr/bin/python3 "$root/scripts/lib/bench/rules.py" "$what" "$kind" "$count" "$@" >"$file"
    case $kind in
        vswitchd) bench_ask "sync-$what" "$file" ;;
        kube-iptables) in_ns "$side" iptables-legacy-restore <"$file" ;;
        *) { echo "flush ruleset" && cat "$file"; } | in_ns "$side" nft -f - ;;
    esac
}

# bench_ask REQUEST FILE
bench_ask() { /usr/bin/python3 "$root/scripts/lib/bench/control_socket.py" "$(node_socket node-a)" "$1" "$2"; }

# bench_place PLACE: sets server_cpu and client_cpu. One of them shares the worker's CPU, or neither does, or the
# scheduler chooses.
bench_place() {
    server_cpu=$other_cpu client_cpu=$other_cpu
    case $1 in
        apart) server_cpu=$worker_cpu ;;
        swapped) client_cpu=$worker_cpu ;;
        free) server_cpu=$worker_cpu,$other_cpu client_cpu=$worker_cpu,$other_cpu ;;
    esac
}

# bench_serve SIDE PORT COMMAND [OPTION…]: of vswitch-load, in the side's second pod.
bench_serve() { bench_listener "$(bench_pod "$1" 2)" "${@:2}"; }

# bench_listener POD PORT COMMAND [OPTION…]: instead of the one that is there; returns once it listens. The port may
# be free only some time after the former one has ended.
bench_listener() {
    local pod=$1 port=$2 _
    lab_stop "serve-$pod"
    for _ in {1..5}; do
        lab_spawn "serve-$pod" "$pod" taskset -c "$server_cpu" "$load" "$3" --at "0.0.0.0:$port" "${@:4}"
        wait_until 10 bench_settled "$pod" "$port" || break
        ! bench_listens "$pod" "$port" || return 0
        sleep 0.5
    done
    die "vswitch-load $3 does not listen in $pod: $(tail -n 1 "$LAB_DIR/logs/serve-$pod.log")"
}

# bench_listens POD PORT
bench_listens() { [[ -n $(in_ns "$1" ss -Hltn "sport = :$2") ]]; }

# bench_settled POD PORT: it listens, or has ended.
bench_settled() { lab_gone "serve-$1" || bench_listens "$1" "$2"; }

# bench_client SIDE COMMAND…: of vswitch-load, in the side's first pod; prints what it prints.
bench_client() { bench_pinned "$client_cpu" "$(bench_pod "$1" 1)" "$load" "${@:2}"; }

# bench_second SIDE PORT: where the side's second pod listens.
bench_second() { printf '%s:%s' "$(address "$(bench_pod "$1" 2)" 4)" "$2"; }

# bench_connections SIDE ADDRESS PORT ADDRESSES [CLIENTS]: how many a second, from the side's first pod.
bench_connections() {
    local answer
    answer=$(bench_client "$1" connections --to "$2:$3" --addresses "$4" --clients "${5:-16}" --seconds "$bench_seconds")
    jq -e 'if .failed > 0 or .stuck > 0 or .connections == 0 then error("connections failed: \(.)")
        else .connections / .seconds end' <<<"$answer"
}

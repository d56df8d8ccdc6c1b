# shellcheck shell=bash
# Routing daemons of the lab's nodes and of its router: BIRD and FRR as Debian packages them, with
# the configurations that config/bird and config/frr ship. Sourced after nodes.sh.

readonly CLUSTER_AS=64512

# bird_up NODE NEIGHBOR…: BIRD on the node, with a session to each of the neighbours' addresses.
bird_up() {
    local node=$1 dir
    dir=$(node_dir "$node")/bird
    mkdir -p "$dir"
    # syslog is the machine's.
    sed 's/^log syslog all;/log stderr all;/' "$root/config/bird/bird.conf" >"$dir/bird.conf"
    bird_node "$node" >"$dir/node.conf"
    shift
    bird_neighbors "$@" >"$dir/neighbors.conf"
    bird_spawn "$node" "$dir"
}

bird_spawn() {
    rm -f "$2/bird.ctl"
    lab_spawn "bird-$1" "$1" \
        bird -f -c "$2/bird.conf" -s "$2/bird.ctl" -P "$2/bird.pid"
    wait_until 5 test -S "$2/bird.ctl" || {
        tail -n 5 "$LAB_DIR/logs/bird-$1.log" >&2
        return 1
    }
}

bird_node() {
    cat <<CONF
define NODE_ADDRESS = ${HOST_ADDRESS[$1]};
define NODE_SUBNET = ${LAN_PREFIX[${HOST_LAN[$1]}]};
define CLUSTER_PREFIXES = [ $CLUSTER4{17,32} ];
define CLUSTER_AS = $CLUSTER_AS;
protocol static pods {
    ipv4;
    route ${POD_PREFIX4[$1]} blackhole;
}
CONF
}

bird_neighbors() {
    local address
    for address in "$@"; do
        printf 'protocol bgp to_%s from node { neighbor %s as CLUSTER_AS; }\n' \
            "${address//./_}" "$address"
    done
}

# bird_neighbors_are NODE ADDRESS…: other sessions than before, without a restart.
bird_neighbors_are() {
    local node=$1 dir
    dir=$(node_dir "$1")/bird
    shift
    bird_neighbors "$@" >"$dir/neighbors.conf"
    birdc -s "$dir/bird.ctl" configure >>"$LAB_DIR/logs/bird-$node.log"
}

# bird_reflector_up: BIRD on the router as a route reflector that forwards nothing.
bird_reflector_up() {
    local dir=$LAB_DIR/reflector
    mkdir -p "$dir"
    sed 's/^log syslog all;/log stderr all;/' "$root/config/bird/reflector.conf" >"$dir/bird.conf"
    cat >"$dir/reflector.local.conf" <<CONF
define REFLECTOR_ADDRESS = ${LAN_GATEWAY[lan-a]};
define NODES = 0.0.0.0/0;
define CLUSTER_PREFIXES = [ $CLUSTER4{17,32} ];
define CLUSTER_AS = $CLUSTER_AS;
CONF
    bird_spawn router "$dir"
}

# frr_up NODE: zebra and bgpd on the node, with a session to the router of its subnet.
frr_up() {
    local node=$1 gateway=${LAN_GATEWAY[${HOST_LAN[$1]}]}
    # The example's values are those of node-a.
    sed -e "s|${HOST_ADDRESS[node-a]}|${HOST_ADDRESS[$node]}|" \
        -e "s|${POD_PREFIX4[node-a]}|${POD_PREFIX4[$node]}|" \
        -e "s|^ neighbor ${LAN_GATEWAY[lan-a]} | neighbor $gateway |" \
        -e "s|^hostname .*|hostname $node|" "$root/config/frr/frr.conf" |
        frr_spawn "$node"
}

# frr_router_up: zebra and bgpd on the router.
frr_router_up() { frr_spawn router <"$root/config/frr/router.conf"; }

# frr_spawn NAME: with the configuration on stdin.
frr_spawn() {
    local name=$1 daemon dir=$LAB_DIR/frr-$1 at
    # FRR gives its privileges up, and must reach its own files then.
    chmod 0711 "$LAB_DIR"
    install -d -o frr -g frr "$dir"
    sed 's/^log syslog /log stdout /' >"$dir/frr.conf"
    at=(-u frr -g frr -f "$dir/frr.conf" -z "$dir/zserv.api" --vty_socket "$dir" -P 0)
    for daemon in zebra bgpd; do
        lab_spawn "$daemon-$name" "$name" "/usr/lib/frr/$daemon" "${at[@]}" -i "$dir/$daemon.pid"
        wait_until 5 test -S "$dir/$daemon.vty" || {
            tail -n 5 "$LAB_DIR/logs/$daemon-$name.log" >&2
            return 1
        }
    done
}

# bgp_node NODE: a node on the underlay that knows nobody: its vswitchd follows the kernel's routes,
# and encapsulates in VXLAN to other subnets. IPv4 alone, as the underlay has nothing else.
bgp_node() {
    local node=$1
    [[ -e /run/netns/$(ns "$node") ]] || underlay_attach_node "$node"
    mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    {
        node_config "$node" vxlan | sed \
            -e "s|^pod_prefixes = .*|pod_prefixes = [\"${POD_PREFIX4[$node]}\"]|" \
            -e "s|^cluster_prefixes = .*|cluster_prefixes = [\"$CLUSTER4\"]|" \
            -e 's|^\[overlay\]|&\nencapsulate = "cross-subnet"|'
        printf '\n[routes.kernel]\n'
    } >"$(node_dir "$node")/vswitch.toml"
    node_start "$node"
}

# A session comes up within this; a dead neighbour is noticed by its hold time, nine seconds.
readonly PROTOCOL_SECONDS=20
# What vswitchd may take after that.
readonly FOLLOWS_SECONDS=1

# kernel_has NODE PREFIX: its kernel routes the prefix, as BIRD or FRR said.
kernel_has() {
    [[ -n $(in_ip "$1" route show proto bird "$2")$(in_ip "$1" route show proto bgp "$2") ]]
}
kernel_lacks() { ! kernel_has "$@"; }

# everyone_learns NODE…: each of the others.
everyone_learns() {
    local here there
    for here in "$@"; do
        for there in "$@"; do
            [[ $here == "$there" ]] || learns "$here" "$there"
        done
    done
}

# learns NODE OTHER: The protocol's part, which is not what is tested, but waited for.
learns() {
    wait_until "$PROTOCOL_SECONDS" kernel_has "$1" "${POD_PREFIX4[$2]}" ||
        fail "$1 hears of $2" "no route is installed in $PROTOCOL_SECONDS s"
}

# follows FROM TO: a ping is answered within the second.
follows() {
    wait_until "$FOLLOWS_SECONDS" \
        in_ns "$1" ping -q -n -c 1 -W 0.3 "$(address "$2" 4)"
}

# shows_route NODE OTHER WORD: the FIB has OTHER's prefix from the kernel, by that encapsulation.
shows_route() {
    ctl "$1" show fib --json | jq -e --arg prefix "${POD_PREFIX4[$2]}" --arg word "$3" '
        any(.[]; .prefix == $prefix and .source == "kernel" and (.target | contains($word)))' ||
        { ctl "$1" show fib && return 1; }
}

is_told_unreachable() {
    [[ $(in_ns "$1" ping -n -c 1 -W 0.5 "$(address "$2" 4)") == *Unreachable* ]]
}

# everyone_talks POD…: TCP between all of them, each seeing the other's own address, and a whole file.
everyone_talks() {
    local from to
    for from in "$@"; do
        for to in "$@"; do
            [[ $from == "$to" ]] || check "$from talks with $to" talks "$from" "$to" 4
        done
    done
}

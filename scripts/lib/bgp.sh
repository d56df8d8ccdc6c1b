# shellcheck shell=bash
# Routing daemons of the lab's nodes and of its router: BIRD and FRR as Debian packages them, with
# the configurations that config/bird and config/frr ship. Sourced after nodes.sh.

readonly CLUSTER_AS=64512

# The underlay's other family, which other labs do without. The router has the first of each.
declare -grA LAN_PREFIX6=(
    [lan-a]=2001:db8:a::/64 [lan-b]=2001:db8:b::/64 [lan-out]=2001:db8:f::/64
)

# bird_up NODE NEIGHBOR…: BIRD on the node, with two sessions to each of the neighbours, of which the
# router is the reflector.
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
define NODE_ADDRESS6 = $(underlay_address6 "$1");
define NODE_SUBNET6 = ${LAN_PREFIX6[${HOST_LAN[$1]}]};
define CLUSTER_PREFIXES = [ $CLUSTER4{17,32} ];
define CLUSTER_PREFIXES6 = [ $CLUSTER6{33,128} ];
define CLUSTER_AS = $CLUSTER_AS;
protocol static pods {
    ipv4;
    route ${POD_PREFIX4[$1]} blackhole;
}
protocol static pods6 {
    ipv6;
    route ${POD_PREFIX6[$1]} blackhole;
}
CONF
}

bird_neighbors() {
    local name
    for name in "$@"; do
        printf 'protocol bgp to_%s from node { neighbor %s as CLUSTER_AS; }\n' \
            "${name/-/_}" "$(underlay_address4 "$name")"
        printf 'protocol bgp to_%s6 from node6 { neighbor %s as CLUSTER_AS; }\n' \
            "${name/-/_}" "$(underlay_address6 "$name")"
    done
}

# bird_neighbors_are NODE NEIGHBOR…: other sessions than before, without a restart.
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
define REFLECTOR_ADDRESS = $(underlay_address4 router);
define REFLECTOR_ADDRESS6 = $(underlay_address6 router);
define NODES = 0.0.0.0/0;
define NODES6 = ::/0;
define CLUSTER_PREFIXES = [ $CLUSTER4{17,32} ];
define CLUSTER_PREFIXES6 = [ $CLUSTER6{33,128} ];
define CLUSTER_AS = $CLUSTER_AS;
CONF
    bird_spawn router "$dir"
}

# frr_up NODE: zebra and bgpd on the node, with a session to the router of its subnet.
frr_up() {
    local node=$1 lan=${HOST_LAN[$1]}
    # The example's values are those of node-a.
    sed -e "s|${HOST_ADDRESS[node-a]}|${HOST_ADDRESS[$node]}|" \
        -e "s|${POD_PREFIX4[node-a]}|${POD_PREFIX4[$node]}|" \
        -e "s|${POD_PREFIX6[node-a]}|${POD_PREFIX6[$node]}|" \
        -e "s|^ neighbor ${LAN_GATEWAY[lan-a]} | neighbor ${LAN_GATEWAY[$lan]} |" \
        -e "s|^ neighbor ${LAN_PREFIX6[lan-a]%/64}1 | neighbor ${LAN_PREFIX6[$lan]%/64}1 |" \
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

# bgp_underlay_up: the underlay, with both families.
bgp_underlay_up() {
    local lan
    underlay_up
    for lan in "${!LAN_PREFIX6[@]}"; do
        in_ip router address add "${LAN_PREFIX6[$lan]%/64}1/64" dev "$lan"
    done
    in_ip outside address add "$(underlay_address6 outside)/64" dev eth0
    for lan in lan-a lan-b; do
        in_ip outside route add "${LAN_PREFIX6[$lan]}" via "${LAN_PREFIX6[lan-out]%/64}1"
    done
}

# underlay_address4 HOST, and underlay_address6 HOST, which ends in the same digits.
underlay_address4() {
    if [[ $1 == router ]]; then echo "${LAN_GATEWAY[lan-a]}"; else echo "${HOST_ADDRESS[$1]}"; fi
}
underlay_address6() {
    local lan=lan-a address4
    [[ $1 == router ]] || lan=${HOST_LAN[$1]}
    address4=$(underlay_address4 "$1")
    printf '%s%s' "${LAN_PREFIX6[$lan]%/64}" "${address4##*.}"
}

# bgp_node NODE: a node on the underlay that knows nobody: its vswitchd follows the kernel's routes,
# and encapsulates in VXLAN to other subnets.
bgp_node() {
    local node=$1
    if [[ ! -e /run/netns/$(ns "$node") ]]; then
        underlay_attach_node "$node"
        in_ip "$node" address add "$(underlay_address6 "$node")/64" dev eth0
        in_ip "$node" route add default via "${LAN_PREFIX6[${HOST_LAN[$node]}]%/64}1"
    fi
    mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    {
        node_config "$node" vxlan | sed 's|^\[overlay\]|&\nencapsulate = "cross-subnet"|'
        printf '\n[routes.kernel]\n'
    } >"$(node_dir "$node")/vswitch.toml"
    node_start "$node"
}

# A session comes up within this; a dead neighbour is noticed by its hold time, nine seconds.
readonly PROTOCOL_SECONDS=20
# What vswitchd may take after that.
readonly FOLLOWS_SECONDS=1

# kernel_has NODE OTHER: its kernel routes both of OTHER's prefixes, as BIRD or FRR said.
kernel_has() {
    [[ -n $(kernel_shows "$1" -4 "${POD_PREFIX4[$2]}") ]] &&
        [[ -n $(kernel_shows "$1" -6 "${POD_PREFIX6[$2]}") ]]
}
# kernel_lacks NODE OTHER: neither of them.
kernel_lacks() {
    [[ -z $(kernel_shows "$1" -4 "${POD_PREFIX4[$2]}") ]] &&
        [[ -z $(kernel_shows "$1" -6 "${POD_PREFIX6[$2]}") ]]
}
# kernel_shows NODE FAMILY PREFIX: what a routing daemon wrote there.
kernel_shows() {
    in_ip "$1" "$2" route show "$3" proto bird
    in_ip "$1" "$2" route show "$3" proto bgp
}

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
    wait_until "$PROTOCOL_SECONDS" kernel_has "$1" "$2" ||
        fail "$1 hears of $2" "no routes of both families are installed in $PROTOCOL_SECONDS s"
}

# follows FROM TO: pings are answered within the second, one of each family.
follows() { wait_until "$FOLLOWS_SECONDS" answered "$1" "$2"; }
answered() {
    in_ns "$1" ping -q -n -c 1 -W 0.3 "$(address "$2" 4)" &&
        in_ns "$1" ping -q -n -c 1 -W 0.3 "$(address "$2" 6)"
}

# shows_route NODE OTHER WORD: the FIB has OTHER's prefixes from the kernel, by that encapsulation.
shows_route() {
    ctl "$1" show fib --json | jq -e --arg word "$3" \
        --argjson prefixes "[\"${POD_PREFIX4[$2]}\", \"${POD_PREFIX6[$2]}\"]" '
        [.[] | select(.source == "kernel" and (.target | contains($word))) | .prefix]
        | contains($prefixes)' ||
        { ctl "$1" show fib && return 1; }
}

# is_told_unreachable FROM TO: over both families.
is_told_unreachable() {
    local family said
    for family in 4 6; do
        said=$(in_ns "$1" ping -n -c 1 -W 0.5 "$(address "$2" "$family")") || true
        [[ ${said,,} == *unreachable* ]] || return 1
    done
}

# everyone_talks POD…: TCP between all of them, each seeing the other's own address, and a whole file;
# over both families.
everyone_talks() {
    local from to family
    for from in "$@"; do
        for to in "$@"; do
            [[ $from != "$to" ]] || continue
            for family in 4 6; do
                check "$from talks with $to over IPv$family" talks "$from" "$to" "$family"
            done
        done
    done
}

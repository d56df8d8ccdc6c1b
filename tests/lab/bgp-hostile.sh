#!/bin/bash
# Announcements that would do harm, from a BGP speaker that node-a listens to: first with the filters
# that config/bird ships, then without them, then from a daemon that looks at nothing at all. What lies
# in the cluster's prefixes and leads astray is refused and named, the rest is nobody's pod; and the
# pods talk on.
#
# One thing the filters alone prevent: an IPv6 default route that BIRD writes (metric 32) stands before
# the node's own (1024), and then it is the node that has lost its way to the others.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/bgp.sh
. "$root/scripts/lib/bgp.sh"

# In node-a's own pod prefixes, and next hops in the cluster's.
readonly REFUSED=(
    198.18.1.64/26 198.18.1.2/32 198.18.77.0/24
    fd00:18:1::/72 fd00:18:1::2/128 fd00:18:77::/64
)
readonly STRANGE=(0.0.0.0/0 198.51.100.11/32 198.51.100.0/26 192.0.2.0/24)
readonly STRANGE6=(2001:db8:a::11/128 2001:db8:77::/48)
# BIRD itself takes none of these for a route.
readonly BOGUS=(0.0.0.0/8 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32)

main() {
    local node
    setup_packages bgp
    setup_binaries
    lab_trap
    lab_create
    bgp_underlay_up
    for node in node-a node-b; do
        bgp_node "$node"
        pod_plug "$node" "${node#node-}1"
    done
    bird_up node-a node-b outside
    bird_up node-b node-a
    servers_up a1 b1
    everyone_learns node-a node-b
    filtered
    unfiltered
    bogus
    withdrawn
    report_end
}

filtered() {
    heading "Behind the filters that are shipped"
    intruder_up
    check "what is announced for this node's own pods, or by way of a pod, is refused and named" \
        wait_until "$PROTOCOL_SECONDS" refuses_exactly node-a "${REFUSED[@]}"
    check "default routes and addresses of the underlay do not come in" \
        lacks_all "${STRANGE[@]}" "${STRANGE6[@]}" ::/0
    nothing_is_lost
}

unfiltered() {
    heading "Without filters"
    sed -i 's|import where net ~ CLUSTER_PREFIXES6*;|import where net != ::/0;|' \
        "$(node_dir node-a)/bird/bird.conf"
    bird_neighbors_are node-a node-b outside
    check "they come in" wait_until "$PROTOCOL_SECONDS" has_all "${STRANGE[@]}" "${STRANGE6[@]}"
    check "the same are refused" refuses_exactly node-a "${REFUSED[@]}"
    nothing_is_lost
}

# As a daemon would write it that has no scruples.
bogus() {
    local prefix
    heading "What BIRD itself would not take"
    for prefix in "${BOGUS[@]}"; do unscrupulous "$prefix" "$(underlay_address4 outside)"; done
    unscrupulous ff00::/8 "$(underlay_address6 outside)"
    unscrupulous 198.18.78.0/24 169.254.0.5
    check "a next hop that is no node's is named" wait_until "$FOLLOWS_SECONDS" \
        refuses_exactly node-a "${REFUSED[@]}" 198.18.78.0/24
    nothing_is_lost
    in_ip node-a route flush proto babel
    in_ip node-a -6 route flush proto babel
}

# unscrupulous PREFIX NEXT_HOP. BIRD would take away what is marked as its own.
unscrupulous() { in_ip node-a route add "$1" via "$2" dev vsw0 onlink proto babel; }

withdrawn() {
    heading "The intruder is gone"
    kill -KILL "$(lab_pid bird-outside)"
    check "and so are the refusals, when its sessions end" \
        wait_until "$PROTOCOL_SECONDS" refuses_exactly node-a
    nothing_is_lost
}

nothing_is_lost() {
    check "no other prefix is routed than node-b's" has_only_from_kernel node-a node-b
    check "a1 is still node-a's own, and reached" pings node-a "$(address a1 4)"
    everyone_talks a1 b1
}

# intruder_up: BIRD on the host outside.
intruder_up() {
    local dir=$LAB_DIR/intruder
    mkdir -p "$dir"
    cat >"$dir/bird.conf" <<CONF
log stderr all;
router id ${HOST_ADDRESS[outside]};
protocol device { }
protocol direct { ipv4; ipv6; }
protocol kernel { learn; ipv4 { import all; export none; }; }
protocol kernel { learn; ipv6 { import all; export none; }; }
$(intruder_family ipv4 198.18.77.1 "${STRANGE[@]}")
$(intruder_family ipv6 fd00:18:77::1 "${STRANGE6[@]}" ::/0)
protocol bgp bgp4 {
    local ${HOST_ADDRESS[outside]} as $CLUSTER_AS;
    neighbor $(underlay_address4 node-a) as $CLUSTER_AS;
    multihop; hold time 9; connect delay time 1;
    ipv4 { import none; export where announced_ipv4(); };
}
protocol bgp bgp6 {
    local $(underlay_address6 outside) as $CLUSTER_AS;
    neighbor $(underlay_address6 node-a) as $CLUSTER_AS;
    multihop; hold time 9; connect delay time 1;
    ipv6 { import none; export where announced_ipv6(); };
}
CONF
    bird_spawn outside "$dir"
}

# intruder_family FAMILY NEXT_HOP PREFIX…: what it announces of that family: these, and what is
# refused; of which the prefix of the next hop is behind a pod that nobody has.
intruder_family() {
    local family=$1 next_hop=$2 network prefix
    shift 2
    network=${next_hop%1}
    [[ $family == ipv6 ]] || network+=0
    printf 'protocol static lies_%s {\n    %s;\n' "$family" "$family"
    for prefix in "${REFUSED[@]}" "$@"; do
        if [[ $(family_of "$prefix") == "$family" ]]; then echo "    route $prefix blackhole;"; fi
    done
    cat <<CONF
}
function announced_$family() {
    if proto != "lies_$family" then return false;
    if net.ip = $network then bgp_next_hop = $next_hop;
    return true;
}
CONF
}

# family_of PREFIX: as BIRD calls it.
family_of() { if [[ $1 == *:* ]]; then echo ipv6; else echo ipv4; fi; }

# refuses_exactly NODE PREFIX…: these are named in its status, and no others.
refuses_exactly() {
    local node=$1 named
    shift
    named=$(ctl "$node" status --json | jq -r '.kernel_routes.refusals[].prefix' | sort)
    [[ $named == "$(printf '%s\n' "$@" | sed '/^$/d' | sort)" ]] || {
        ctl "$node" status
        return 1
    }
}

# has_only_from_kernel NODE OTHER: the kernel's routes in its FIB are those to OTHER's prefixes.
has_only_from_kernel() {
    ctl "$1" show fib --json | jq -e --arg four "${POD_PREFIX4[$2]}" --arg six "${POD_PREFIX6[$2]}" '
        [.[] | select(.source == "kernel") | .prefix] | sort == ([$four, $six] | sort)' ||
        { ctl "$1" show fib && return 1; }
}

has_all() {
    local prefix
    for prefix in "$@"; do [[ -n $(of_bird "$prefix") ]] || return 1; done
}

lacks_all() {
    local prefix
    for prefix in "$@"; do [[ -z $(of_bird "$prefix") ]] || { of_bird "$prefix" && return 1; }; done
}

of_bird() {
    local family=-4
    [[ $1 != *:* ]] || family=-6
    in_ip node-a "$family" route show exact "$1" proto bird
}

main "$@"

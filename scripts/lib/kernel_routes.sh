# shellcheck shell=bash
# Three nodes whose only source is the kernel's routing table, and how soon they follow it. Sourced
# after all.sh by the tests of that.

# Traffic follows the kernel within a second.
readonly SOON_SECONDS=1
# The kernel itself repeats a request for a MAC, which nobody may hear while links come up, after a
# second.
readonly PATIENCE_SECONDS=8

# node-a and node-k share a subnet, node-b is behind the router.
three_nodes_up() {
    local node
    underlay_up
    for node in node-a node-b node-k; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
        configure "$node" vxlan
        node_start "$node"
    done
}

# configure NODE ENCAPSULATION LINE…: no peer, the kernel's routes, and further lines of that.
configure() {
    local node=$1 mode=$2
    shift 2
    {
        node_config "$node" "$mode"
        printf '\n[routes.kernel]\n'
        (($# == 0)) || printf '%s\n' "$@"
    } >"$(node_dir "$node")/vswitch.toml"
}

# soon COMMAND…: it succeeds within SOON_SECONDS.
soon() { until_deadline "$SOON_SECONDS" "$@"; }

# once_known NODE ADDRESS COMMAND…: it succeeds within SOON_SECONDS of the kernel's having a route to
# that address and the MAC of the next hop. Nobody but the vSwitch asks the kernel for that.
once_known() {
    until_deadline "$PATIENCE_SECONDS" kernel_knows "$1" "$2" || { echo "no $2" && return 1; }
    shift 2
    soon "$@"
}

# kernel_knows NODE ADDRESS
kernel_knows() {
    local via
    via=$(in_ip "$1" -json route get "$2" 2>/dev/null | jq -r '.[0] | .gateway // .dst') || return 1
    in_ip "$1" -json neigh show "$via" 2>/dev/null | jq -e 'any(.[]; .lladdr)' >/dev/null
}

# reaches_once FROM TO [FAMILY]
reaches_once() { in_ns "$1" ping -q -n -c 1 -W 0.3 "$(address "$2" "${3:-4}")" >/dev/null; }

cannot_reach() { ! reaches_once "$@"; }

# goes NODE PREFIX WORDS: the route is the kernel's, and its target begins with these words.
goes() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" --arg words "$3" \
        'any(.[]; .prefix == $prefix and .source == "kernel" and (.target | startswith($words)))' >/dev/null
}

# goes_nowhere NODE PREFIX: the kernel's routes do not have it.
goes_nowhere() {
    ctl "$1" show fib --json | jq -e --arg prefix "$2" \
        'all(.[]; .prefix != $prefix or .source != "kernel")' >/dev/null
}

link_local() {
    in_ip "$1" -6 -json address show dev eth0 scope link | jq -r '[.[].addr_info[]?.local][0] // empty'
}

routes_on_the_link() {
    in_ip node-a route replace "${POD_PREFIX4[node-k]}" via "${HOST_ADDRESS[node-k]}"
    in_ip node-k route replace "${POD_PREFIX4[node-a]}" via "${HOST_ADDRESS[node-a]}"
}

routes_through_the_overlay() {
    in_ip node-a route replace "${POD_PREFIX4[node-b]}" via "${HOST_ADDRESS[node-b]}" dev vsw0 onlink
    in_ip node-b route replace "${POD_PREFIX4[node-a]}" via "${HOST_ADDRESS[node-a]}" dev vsw0 onlink
}

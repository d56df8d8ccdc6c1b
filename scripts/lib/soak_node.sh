# shellcheck shell=bash
# The node of a soak: node-a alone, with many pods, and what it holds. Sourced after all.sh; needs a lab.

# soak_node: the underlay and node-a with a daemon; VSWITCHD_ROLE as ever.
soak_node() {
    underlay_up
    underlay_attach_node node-a
    node_up node-a vxlan
    plugin_config node-a >"$LAB_DIR/network.json"
}

# soak_pods LAST [FIRST]
soak_pods() {
    step "Adding pods up to the ${1}th"
    pods_plug node-a "$@"
}

# soak_pods_file COUNT: namespace and address of each.
soak_pods_file() {
    local number
    for ((number = 1; number <= $1; number++)); do
        printf '%s %s\n' "$(ns "p$number")" "$(address "p$number" 4)"
    done
}

# The process of node-a's daemon under its supervisor.
soak_daemon() { pgrep -P "$(lab_pid vswitchd-node-a)"; }

# is_another FORMER
is_another() {
    local daemon
    daemon=$(soak_daemon) && [[ $daemon != "$1" ]] && ctl node-a status
}

descriptors_of() {
    local fds=("/proc/$1/fd/"*)
    printf '%d' "${#fds[@]}"
}

# soak_python PROGRAM ARGUMENTS…: of scripts/lib, in the node's network namespace. Bytes of its own are not
# left in the tree.
soak_python() {
    local program=$1
    shift
    in_ns node-a env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$root/scripts/lib/$program.py" "$@"
}

# churn COMMAND OPTION…
churn() {
    local command=$1
    shift
    soak_python soak_churn "$command" "$bin/vswitch-cni" "$LAB_DIR/network.json" "$(ns '')" \
        "$LAB_DIR/namespaces" "$@"
}

leases() { ctl node-a show ports --json | jq '[.[] | select(.attachment)] | length'; }
holds_nothing() { [[ $(leases) == 0 ]]; }
# A worker's may come and go.
has_descriptors() { (($(descriptors_of "$(lab_pid vswitchd-node-a)") <= $1)); }

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

# traffic_begin CONNECTIONS POD…: between these pods, until traffic_end; the probe is between the first two.
traffic_begin() {
    local connections=$1 pod
    shift
    for pod in "$@"; do printf '%s %s\n' "$(ns "$pod")" "$(address "$pod" 4)"; done >"$LAB_DIR/pods"
    : >"$LAB_DIR/moments"
    rm -f "$LAB_DIR/traffic.json" "$LAB_DIR/logs/traffic.log"
    lab_spawn traffic node-a env PYTHONDONTWRITEBYTECODE=1 taskset -c "$(allowed_cpu 1)" /usr/bin/python3 \
        "$root/scripts/lib/soak_traffic.py" run "$LAB_DIR/pods" "$connections" "$LAB_DIR/traffic.json"
    wait_until 20 grep -q 'all flows run' "$LAB_DIR/logs/traffic.log" || die "The traffic did not start"
    sleep 3
}

traffic_end() {
    lab_signal traffic TERM || true
    wait_until 15 test -s "$LAB_DIR/traffic.json" || die "The traffic left no result; its log is traffic.log"
}

traffic_report() {
    soak_python soak_traffic report "$LAB_DIR/traffic.json" "$LAB_DIR/moments"
}

# collected COUNT KEPT BESIDE: so many pods, some of which a GC keeps, and pods of another network: a report of
# soak_collect.py.
collected() {
    soak_python soak_collect "$(node_socket node-a)" "$bin/vswitch-cni" "$LAB_DIR/network.json" "$(ns '')" \
        "$LAB_DIR/namespaces" "$@"
}

# shellcheck disable=SC2034  # Scripts that source this use it.
readonly COLLECTED_NO_OTHER='.others_touched + .others_cut_off == 0'

# collected_exactly COUNT: a condition: so many, and none but those.
collected_exactly() {
    printf '.freed == %d and .listed_freed + .unlisted_left + .interfaces_left + .listed_cut_off == 0' "$1"
}

# more_addresses NODE: its pods have eight times as many, from its next start on.
more_addresses() {
    sed -i "s|\"${POD_PREFIX4[$1]}\"|\"198.18.32.0/21\"|" "$(node_dir "$1")/vswitch.toml"
}

leases() { ctl node-a show ports --json | jq '[.[] | select(.attachment)] | length'; }
holds_nothing() { [[ $(leases) == 0 ]]; }
# A worker's may come and go.
has_descriptors() { (($(descriptors_of "$(lab_pid vswitchd-node-a)") <= $1)); }

# shellcheck shell=bash
# Nodes of the cluster: each with its own configuration, vswitchd, control socket and state
# directory; and the pods on them, plugged by executing vswitch-cni as a container runtime does.
# Sourced after underlay.sh; needs `root` (the repository) and `bin` (the binaries).

declare -grA POD_PREFIX4=(
    [node-a]=198.18.1.0/24 [node-b]=198.18.2.0/24 [node-k]=198.18.3.0/24 [node-v]=198.18.4.0/24
    [node-c]=198.18.5.0/24 [node-d]=198.18.6.0/24
)
declare -grA POD_PREFIX6=(
    [node-a]=fd00:18:1::/64 [node-b]=fd00:18:2::/64 [node-k]=fd00:18:3::/64 [node-v]=fd00:18:4::/64
    [node-c]=fd00:18:5::/64 [node-d]=fd00:18:6::/64
)
readonly CLUSTER4=198.18.0.0/16 CLUSTER6=fd00:18::/32
readonly VNI=10
# The underlay's 1500 bytes less the encapsulation's overhead.
declare -grA POD_MTU=([vxlan]=1450 [ipip]=1480 [direct]=1500)

# The first usable address of each prefix belongs to the node.
gateway4() { printf '%s1' "${POD_PREFIX4[$1]%0/24}"; }
gateway6() { printf '%s1' "${POD_PREFIX6[$1]%/64}"; }
# The address by which its kernel masquerades what it forwards to pods: the highest of each prefix.
masquerade4() { printf '%s254' "${POD_PREFIX4[$1]%0/24}"; }
masquerade6() { printf '%s:0:ffff:ffff:ffff:ffff' "${POD_PREFIX6[$1]%::/64}"; }

node_dir() { printf '%s/%s' "$LAB_DIR" "$1"; }
node_socket() { printf '%s/%s/vswitch.sock' "$LAB_DIR" "$1"; }

# ctl NODE ARGUMENTS…: vswitchctl, for that node.
ctl() {
    local node=$1
    shift
    "$bin/vswitchctl" --socket "$(node_socket "$node")" "$@"
}

# allowed_cpu N: the Nth CPU that we may run on, counted around.
allowed_cpu() {
    /usr/bin/python3 -c 'import os, sys
cpus = sorted(os.sched_getaffinity(0))
print(cpus[int(sys.argv[1]) % len(cpus)])' "$1"
}

# uplink_kind: the line of `[uplink]` for the kind that VSWITCH_UPLINK names, so that a scenario runs over
# any; without it a node has the default.
uplink_kind() { printf '%s' "${VSWITCH_UPLINK:+kind = \"$VSWITCH_UPLINK\"}"; }

# port_io: the line of `[workers]` for the way that VSWITCH_PORT_IO names, likewise.
port_io() { printf '%s' "${VSWITCH_PORT_IO:+port_io = \"$VSWITCH_PORT_IO\"}"; }

# node_config NODE MODE PEER…: prints its vswitch.toml. ATTACHMENT_MODE chooses routed or bridged.
node_config() {
    local node=$1 mode=$2 peer index=0
    shift 2
    [[ $node != node-b ]] || index=1
    cat <<TOML
[node]
name = "$node"
pod_prefixes = ["${POD_PREFIX4[$node]}", "${POD_PREFIX6[$node]}"]
cluster_prefixes = ["$CLUSTER4", "$CLUSTER6"]

[uplink]
interface = "eth0"
$(uplink_kind)

[overlay]
encapsulation = "$mode"
vni = $VNI

[attachment]
mode = "${ATTACHMENT_MODE:-routed}"

[workers]
cores = [$(allowed_cpu "$index")]
$(port_io)

[control]
socket = "$(node_socket "$node")"
state_dir = "$(node_dir "$node")/state"
TOML
    for peer in "$@"; do
        cat <<TOML

[[peers]]
name = "$peer"
address = "${HOST_ADDRESS[$peer]}"
prefixes = ["${POD_PREFIX4[$peer]}", "${POD_PREFIX6[$peer]}"]
TOML
        case $peer in
            node-k | node-c) printf 'vtep_mac = "%s"\n' "$(vtep_mac_of "$peer")" ;;
            node-v) printf 'vtep_mac = "%s"\n' "$VM_VTEP_MAC" ;;
        esac
    done
}

# node_up NODE MODE PEER…: configures the node (underlay_attach_node made it) and starts vswitchd.
node_up() {
    local node=$1
    mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    node_config "$@" >"$(node_dir "$node")/vswitch.toml"
    node_start "$node"
}

# Words before vswitchd's command line: what it is run under.
VSWITCHD_UNDER=()
# `supervise` has it started again whenever it ends.
VSWITCHD_ROLE=

# node_start NODE: vswitchd with the configuration that is there; returns once it answers.
node_start() {
    local node=$1
    node_spawn "$node"
    wait_until 10 node_settled "$node" && ctl "$node" status >/dev/null 2>&1 && return 0
    say "vswitchd on $node did not come up; the end of its log:" >&2
    tail -n 20 "$LAB_DIR/logs/vswitchd-$node.log" >&2
    return 1
}

# node_spawn NODE: as node_start, but returns at once.
node_spawn() {
    local node=$1
    lab_spawn "vswitchd-$node" "$node" \
        env RUST_LOG="${RUST_LOG:-info}" NO_COLOR=1 "${VSWITCHD_UNDER[@]}" "$bin/vswitchd" \
        ${VSWITCHD_ROLE:+"$VSWITCHD_ROLE"} --config "$(node_dir "$node")/vswitch.toml"
}

# node_drain NODE: its daemon leaves nothing behind, and ends.
node_drain() {
    "$bin/vswitchd" --config "$(node_dir "$1")/vswitch.toml" --drain &&
        wait_until 5 lab_gone "vswitchd-$1"
}

# It answers, or it will not any more.
node_settled() { lab_gone "vswitchd-$1" || ctl "$1" status; }

# plugin_config NODE: the network's configuration as a runtime gives it to the plugin.
plugin_config() {
    jq --arg socket "$(node_socket "$1")" --arg state "$(node_dir "$1")/state" \
        '{cniVersion, name} + .plugins[0] + {socket: $socket, stateDir: $state}' "$root/config/10-vswitch.conflist"
}

# cni NODE COMMAND POD [PREVIOUS_RESULT]: executes the plugin as a runtime on that node does: in the
# node's namespace, CNI_* in the environment, the network's configuration on stdin. CNI_CONFLIST
# names another conflist than the one that is shipped, CNI_NETNS_PATH another path of the pod's namespace,
# CNI_IFNAME another interface than eth0;
# CNI_EXTRA has keys for the configuration, as JSON. POD_NAMESPACE, POD_NAME and POD_UID are those of the
# pod's object, if it has one.
cni() {
    local node=$1 command=$2 pod=$3 previous=${4:-null} extra=${CNI_EXTRA:-}
    jq --arg socket "$(node_socket "$node")" --arg state "$(node_dir "$node")/state" \
        --argjson previous "$previous" --argjson extra "${extra:-null}" '
        {cniVersion, name} + .plugins[0] + {socket: $socket, stateDir: $state}
        + (if $previous == null then {} else {prevResult: $previous} end) + ($extra // {})
    ' "${CNI_CONFLIST:-$root/config/10-vswitch.conflist}" |
        in_ns "$node" env -i PATH="$PATH" CNI_COMMAND="$command" \
            CNI_CONTAINERID="$(ns "$pod")" CNI_NETNS="${CNI_NETNS_PATH-/run/netns/$(ns "$pod")}" \
            CNI_IFNAME="${CNI_IFNAME:-eth0}" CNI_PATH="$bin:/usr/lib/cni" \
            CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=${POD_NAMESPACE:-demo};K8S_POD_NAME=${POD_NAME:-$pod};K8S_POD_UID=${POD_UID:-uid-of-$pod}" \
            timeout 20 "$bin/vswitch-cni"
}

# pod_plug NODE POD: makes the pod's namespace, ADDs it, and remembers result and addresses.
pod_plug() {
    local node=$1 pod=$2 result
    result=$(node_dir "$node")/pods/$pod.json
    lab_add_ns "$pod"
    if ! cni "$node" ADD "$pod" >"$result.part" 2>>"$LAB_DIR/logs/cni-$node.log"; then
        say "CNI ADD of $pod on $node failed: $(cat "$result.part")" >&2
        return 1
    fi
    mv "$result.part" "$result"
    pod_address "$result" '\.' >"$LAB_DIR/addresses/$pod.4"
    pod_address "$result" ':' >"$LAB_DIR/addresses/$pod.6"
}

# pods_plug NODE LAST [FIRST]: p1, p2, …, eight at once.
pods_plug() {
    local number jobs=() job
    for ((number = ${3:-1}; number <= $2; number++)); do
        pod_plug "$1" "p$number" &
        jobs+=("$!")
        ((${#jobs[@]} < 8)) || { for job in "${jobs[@]}"; do wait "$job"; done && jobs=(); }
    done
    for job in "${jobs[@]}"; do wait "$job"; done
}

# pod_address RESULT PATTERN: the first address of a result that matches.
pod_address() {
    jq -r --arg like "$2" 'first(.ips[].address | select(test($like))) | split("/")[0]' "$1"
}

# pod_unplug NODE POD: DEL with the result that ADD gave, then the namespace goes.
pod_unplug() {
    local node=$1 pod=$2 result
    result=$(node_dir "$node")/pods/$pod.json
    cni "$node" DEL "$pod" "$(cat "$result" 2>/dev/null || echo null)" \
        >"$result.part" 2>>"$LAB_DIR/logs/cni-$node.log" ||
        { say "CNI DEL of $pod on $node failed: $(cat "$result.part")" >&2 && return 1; }
    rm -f "$result" "$result.part"
    lab_delete_ns "$pod"
}

# address NAME FAMILY: of a pod; of a node within the cluster, that is, its gateway address; or of a
# host on the underlay.
address() {
    case $1 in
        node-*) "gateway$2" "$1" ;;
        outside | router) printf '%s' "${HOST_ADDRESS[$1]}" ;;
        *) cat "$LAB_DIR/addresses/$1.$2" ;;
    esac
}

# two_nodes_up MODE: the underlay, node-a and node-b. WITH_KERNEL_NODE adds node-k, WITH_VM_NODE
# node-v, which is then still starting.
two_nodes_up() {
    local mode=$1 peers_a=(node-b) peers_b=(node-a)
    printf '%s\n' "$mode" >"$LAB_DIR/mode"
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    if [[ -n ${WITH_KERNEL_NODE:-} ]]; then
        kernel_node_up
        peers_a+=(node-k)
        peers_b+=(node-k)
    fi
    if [[ -n ${WITH_VM_NODE:-} ]]; then
        vm_node_up "$mode" "${POD_MTU[$mode]}" node-a node-b
        peers_a+=(node-v)
        peers_b+=(node-v)
    fi
    if [[ $mode == direct ]]; then
        underlay_route_pods node-a
        underlay_route_pods node-b
    fi
    node_up node-a "$mode" "${peers_a[@]}"
    node_up node-b "$mode" "${peers_b[@]}"
}

# node_overlay NODE LINE…: the node's [overlay] becomes these lines, and it reloads them. The cluster's
# VNI stays unless a line gives another.
node_overlay() {
    local node=$1 file
    shift
    file=$(node_dir "$node")/vswitch.toml
    printf '%s\n' "$@" >"$file.lines"
    grep -q '^vni = ' "$file.lines" || printf 'vni = %s\n' "$VNI" >>"$file.lines"
    awk -v lines="$file.lines" '
        /^\[/ { inside = 0 }
        !inside { print }
        /^\[overlay\]/ { inside = 1; while ((getline line < lines) > 0) print line; print "" }
    ' "$file" >"$file.new"
    mv "$file.new" "$file"
    node_reload "$node"
}

# node_firewall NODE: its kernel drops what it takes for no part of a connection, as kube-proxy has it.
node_firewall() {
    in_ns "$1" nft -f - <<'NFT'
table inet kube {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid drop
  }
}
NFT
}

# node_reload NODE: its daemon reads its configuration again; fails if that is refused.
node_reload() {
    local log=$LAB_DIR/logs/vswitchd-$1.log before
    before=$(reloads "$log")
    kill -HUP "$(lab_pid "vswitchd-$1")"
    wait_until 5 reloaded_since "$log" "$before" || { tail -n 3 "$log" && return 1; }
}

reloads() { grep -c 'the configuration is reloaded' "$1" || true; }

reloaded_since() { (($(reloads "$1") > $2)); }

# node_daemon NODE: the process of its daemon, a child of the supervisor that `VSWITCHD_ROLE=supervise` has started.
node_daemon() { pgrep -P "$(lab_pid "vswitchd-$1")"; }

# node_adjust NODE: its live pods get their MTU, as vswitch-adjust.service gives it to them.
node_adjust() { "$bin/vswitch-cni" --adjust "$(node_socket "$1")"; }

# link_has_mtu NAME INTERFACE MTU
link_has_mtu() { in_ip "$1" -json link show dev "$2" | jq -e --argjson mtu "$3" '.[0].mtu == $mtu'; }

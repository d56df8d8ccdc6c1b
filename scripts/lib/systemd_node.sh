# shellcheck shell=bash
# A node of the lab that is a machine with systemd: Debian in systemd-nspawn, in the node's network
# namespace, with the vSwitch installed by scripts/install and run by its units. Its files are a
# throw-away overlay of systemd_root. Its journal is among the lab's logs, in journal-NODE, to be read by
# `journalctl --directory`. No process that is started from here may stay on the machine: one of whose end
# systemd is not told holds up its shutdown. Sourced after systemd_root.sh and nodes.sh.

# Prints what is missing for such a node, or nothing.
systemd_node_lacks() {
    command -v systemd-nspawn >/dev/null || { say "systemd-nspawn"; return; }
    unshare --mount --pid --fork --mount-proc sh -c '
        mount -t tmpfs tmpfs /mnt && mkdir /mnt/lower /mnt/upper /mnt/work /mnt/root &&
        mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root' \
        2>/dev/null || { say "overlayfs, or the permission to mount"; return; }
    [[ -n $(findmnt -n -t cgroup2) ]] || say "a mounted cgroup2"
}

# systemd_node_boot NODE: boots it (underlay_attach_node made its network); returns when it runs.
systemd_node_boot() {
    local node=$1 outer
    systemd_root_build
    mkdir -p "$(node_dir "$node")/pods" "$LAB_DIR/logs/journal-$node"
    lab_spawn "machine-$node" "$node" unshare --mount --pid --fork --kill-child --mount-proc \
        --propagation slave "$root/scripts/lib/systemd_boot.sh" "$(systemd_root)" "$root" "$bin" \
        "$LAB_DIR/logs/journal-$node" "$LAB_DIR/cgroups"
    outer=$(lab_pid "machine-$node")
    wait_until 5 pgrep -P "$outer" || die "The machine of $node does not start"
    # unshare hears no SIGTERM; what runs within does, and unshare ends with it.
    lab_remember_pid "machine-$node" "$(pgrep -P "$outer")"
    systemd_node_runs "$node"
}

# systemd_node_runs NODE: waits until everything that is to start there has started.
systemd_node_runs() {
    wait_until 30 systemd_node_has_run_level "$1" && return 0
    say "systemd on $1 does not come up; the end of its log:" >&2
    tail -n 20 "$LAB_DIR/logs/machine-$1.log" >&2
    inside "$1" systemctl --failed >&2 || true
    return 1
}

systemd_node_has_run_level() {
    [[ $(inside "$1" systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]
}

# systemd_node_init NODE: the pid of its first process, as we see it.
systemd_node_init() {
    local machine nspawn child
    machine=$(lab_pid "machine-$1") || return 1
    for nspawn in $(pgrep -P "$machine" -x systemd-nspawn); do
        for child in $(pgrep -P "$nspawn"); do
            [[ $(awk '/^NSpid:/ { print $NF }' "/proc/$child/status" 2>/dev/null) != 1 ]] || {
                printf '%s' "$child"
                return 0
            }
        done
    done
    return 1
}

readonly INSIDE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

# inside NODE COMMAND…: on that machine, as root at its console would.
inside() {
    local init
    init=$(systemd_node_init "$1") || { say "the machine of $1 does not run" && return 1; }
    shift
    nsenter --target "$init" --all -- /usr/bin/env -i PATH="$INSIDE_PATH" LANG=C.UTF-8 "$@"
}

# inside_write NODE FILE: what is on stdin becomes the file.
inside_write() { inside "$1" sh -c "cat >'$2'"; }

# systemd_node_install NODE [BINARIES]: scripts/install there, with binaries that were built outside.
systemd_node_install() { inside "$1" env VSWITCH_BIN="${2:-/built}" /source/scripts/install; }

# systemd_node_config NODE MODE PEER…: its vswitch.toml, with socket and state where the units have them.
systemd_node_config() {
    node_config "$@" | sed '/^\[control\]$/,/^$/d' | inside_write "$1" /etc/vswitch/vswitch.toml
}

# systemd_cni NODE COMMAND POD [PREVIOUS_RESULT]: the installed plugin, executed with the installed
# network's configuration as a runtime on that machine does.
systemd_cni() {
    local node=$1 command=$2 pod=$3 previous=${4:-null}
    inside "$node" cat /etc/cni/net.d/10-vswitch.conflist |
        jq --argjson previous "$previous" '{cniVersion, name} + .plugins[0]
            + if $previous then {prevResult: $previous} else {} end' |
        inside "$node" env CNI_COMMAND="$command" CNI_CONTAINERID="$pod-0123456789" CNI_IFNAME=eth0 \
            CNI_NETNS="/run/netns/$pod" CNI_PATH=/opt/cni/bin \
            CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=$pod" \
            timeout 20 /opt/cni/bin/vswitch-cni
}

# systemd_pod_plug NODE POD: a namespace of the lab, known on the machine by the pod's name; ADD; its
# addresses are remembered.
systemd_pod_plug() {
    local node=$1 pod=$2 result
    result=$(node_dir "$node")/pods/$pod.json
    lab_add_ns "$pod"
    systemd_pod_attach "$node" "$pod"
    if ! systemd_cni "$node" ADD "$pod" >"$result" 2>>"$LAB_DIR/logs/cni-$node.log"; then
        say "CNI ADD of $pod on $node failed: $(cat "$result")" >&2
        return 1
    fi
    pod_address "$result" '\.' >"$LAB_DIR/addresses/$pod.4"
    pod_address "$result" ':' >"$LAB_DIR/addresses/$pod.6"
}

# systemd_pod_attach NODE POD: in the pod's network and with the machine's files and processes.
systemd_pod_attach() {
    nsenter --target "$(systemd_node_init "$1")" --mount --pid --net="/run/netns/$(ns "$2")" -- \
        sh -c "ip netns attach $2 \$\$"
}

# systemd_pod_unplug NODE POD: DEL, then the namespace goes, there and here.
systemd_pod_unplug() {
    local node=$1 pod=$2 result
    result=$(node_dir "$node")/pods/$pod.json
    systemd_cni "$node" DEL "$pod" "$(cat "$result")" || return 1
    inside "$node" ip netns del "$pod"
    rm -f "$result"
    lab_delete_ns "$pod"
}

# systemd_two_nodes_up: node-a with systemd and nothing of ours installed, node-b as in every lab.
systemd_two_nodes_up() {
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    node_up node-b vxlan node-a
    systemd_node_boot node-a
}

# systemd_vswitch_up NODE MODE PEER…: installed, configured, enabled and started, by the steps of
# docs/operations.md.
systemd_vswitch_up() {
    systemd_node_install "$1" >>"$LAB_DIR/logs/install-$1.log"
    systemd_node_config "$@"
    inside "$1" sysctl --quiet --load /etc/sysctl.d/90-vswitch.conf
    inside "$1" systemctl enable --quiet --now vswitchd
}

# systemd_node_reboot NODE POD…: these pods' namespaces, which the lab holds as well, end with it.
systemd_node_reboot() {
    local node=$1 init pod
    shift
    init=$(systemd_node_init "$node")
    # It goes away under the command that asks for it.
    inside "$node" systemctl reboot || true
    wait_until 30 process_is_gone "$init" || { say "$node does not shut down" && return 1; }
    for pod in "$@"; do lab_delete_ns "$pod"; done
    systemd_node_runs "$node"
}

process_is_gone() { [[ ! -d /proc/$1 ]]; }

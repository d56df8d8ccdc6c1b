# shellcheck shell=bash
# podman on a machine of runtime_node.sh, with its CNI backend. Sourced after all.sh.

# podman_up NODE: configured, and its images loaded.
podman_up() {
    local dir
    PODMAN_NODE=$1
    dir=$(node_dir "$1")/podman
    mkdir -p "$dir"
    runtime_network "$1" "$dir/net.d"
    # Descriptors and processes within what the lab's machine allows.
    cat >"$dir/containers.conf" <<TOML
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
cgroups = "no-conmon"
pids_limit = 0
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"

[network]
network_backend = "cni"
cni_plugin_dirs = ["$bin", "/usr/lib/cni"]
network_config_dir = "$dir/net.d"
TOML
    cat >"$dir/storage.conf" <<TOML
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
TOML
    served_image >/dev/null
    podman_on load --quiet --input "$LAB_DIR/served.tar"
}

# podman_on ARGUMENTS…: podman on its node.
podman_on() {
    local dir
    dir=$(node_dir "$PODMAN_NODE")/podman
    on_host "$PODMAN_NODE" env CONTAINERS_CONF="$dir/containers.conf" \
        CONTAINERS_STORAGE_CONF="$dir/storage.conf" podman "$@"
}

in_container() { podman_on exec "$@"; }

# podman_run NAME [OPTION…]: a container with a network of its own that serves the file.
podman_run() {
    local name=$1
    shift
    podman_on run --detach --name "$name" --network vswitch --cap-add net_raw "$@" localhost/served:1 &&
        podman_remember "$name" "$name"
}

# podman_pod NAME: a pod with two containers, NAME-server and NAME-client.
podman_pod() {
    podman_on pod create --name "$1" --network vswitch --share-parent=false \
        --infra-image localhost/served:1 --infra-command "/bin/sleep 3600" --infra-name "$1-infra" &&
        podman_on run --detach --pod "$1" --name "$1-server" --cap-add net_raw localhost/served:1 &&
        podman_on run --detach --pod "$1" --name "$1-client" --cap-add net_raw localhost/served:1 sleep 3600 &&
        podman_remember "$1" "$1-infra" && podman_remember "$1-client" "$1-infra"
}

# podman_remember NAME CONTAINER: its addresses.
podman_remember() {
    podman_network_of "$2" | jq -er .IPAddress >"$LAB_DIR/addresses/$1.4" &&
        podman_network_of "$2" | jq -er .GlobalIPv6Address >"$LAB_DIR/addresses/$1.6"
}

podman_network_of() { podman_on inspect "$1" | jq -e '.[0].NetworkSettings.Networks.vswitch'; }

# podman_namespace CONTAINER: the name of its network namespace.
podman_namespace() { basename "$(podman_on inspect --format '{{.NetworkSettings.SandboxKey}}' "$1")"; }

# podman_crash CONTAINER: its process and its monitor are killed, and nobody cleans up.
podman_crash() {
    local pids
    read -ra pids < <(podman_on inspect --format '{{.State.ConmonPid}} {{.State.Pid}}' "$1")
    on_host "$PODMAN_NODE" sh -c 'kill -KILL "$@"' sh "${pids[@]}"
}

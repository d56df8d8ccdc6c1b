# shellcheck shell=bash
# containerd on a machine of runtime_node.sh, asked through its CRI as a kubelet asks it. Sourced after all.sh.
# A pod and a container are known by a name; LAB_DIR/cri holds their ids.

# containerd_up NODE: configured and started, its images imported.
containerd_up() {
    local dir plugin
    CONTAINERD_NODE=$1
    dir=$(node_dir "$1")/containerd
    mkdir -p "$dir/bin" "$LAB_DIR/cri"
    protoc --proto_path="$root/scripts/lib" --python_out="$LAB_DIR/cri" cri.proto
    runtime_network "$1" "$dir/net.d"
    ln -s "$bin/vswitch-cni" "$dir/bin/"
    for plugin in loopback portmap; do ln -s "/usr/lib/cni/$plugin" "$dir/bin/"; done
    {
        containerd_config
        cat <<TOML

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$dir/bin"
conf_dir = "$dir/net.d"
TOML
    } >"$dir/config.toml"
    served_image >/dev/null
    runtime_image pause sleep 1000000 >/dev/null
    containerd_start
    local image
    for image in served pause; do
        on_host "$1" ctr --namespace k8s.io images import --snapshotter native "$LAB_DIR/$image.tar"
    done
}

# containerd_start: and returns once it has a network for pods.
containerd_start() {
    machine_spawn "$CONTAINERD_NODE" containerd containerd \
        --config "$(node_dir "$CONTAINERD_NODE")/containerd/config.toml"
    wait_until 20 containerd_has_network && return 0
    say "containerd does not come up; the end of its log:" >&2
    tail -n 20 "$LAB_DIR/logs/containerd-$CONTAINERD_NODE.log" >&2
    return 1
}

containerd_has_network() {
    cri Status '{}' | jq -e '.status.conditions | all(.status) and any(.type == "NetworkReady")'
}

# cri METHOD JSON
cri() {
    on_host "$CONTAINERD_NODE" /usr/bin/python3 "$root/scripts/lib/cri_client.py" "$LAB_DIR/cri" \
        /run/containerd/containerd.sock "$@"
}

# cri_id NAME
cri_id() { cat "$LAB_DIR/cri/$1"; }

# cri_pod NAME [HOST_PORT]: the pod alone; its addresses are remembered.
cri_pod() {
    local config
    config=$(jq -n --arg name "$1" --arg host_port "${2:-}" --arg port "$SERVER_PORT" '
        {metadata: {name: $name, uid: $name, namespace: "demo"}}
        + if $host_port == "" then {} else {port_mappings: [{container_port: $port, host_port: $host_port}]} end')
    printf '%s' "$config" >"$LAB_DIR/cri/$1.config"
    cri RunPodSandbox "{\"config\": $config}" | jq -er .pod_sandbox_id >"$LAB_DIR/cri/$1.new" || return 1
    mv "$LAB_DIR/cri/$1.new" "$LAB_DIR/cri/$1"
    cri_remember "$1" "$1"
}

# cri_remember NAME POD: NAME has the pod's addresses.
cri_remember() {
    local network
    network=$(cri PodSandboxStatus "{\"pod_sandbox_id\": \"$(cri_id "$2")\"}" | jq -e .status.network) || return 1
    jq -er .ip <<<"$network" >"$LAB_DIR/addresses/$1.4" &&
        jq -er '.additional_ips[0].ip' <<<"$network" >"$LAB_DIR/addresses/$1.6"
}

# cri_container POD NAME [COMMAND…]: the image's own command is to serve the file.
cri_container() {
    local pod=$1 name=$2 request
    shift 2
    request=$(jq -n --arg pod "$(cri_id "$pod")" --arg name "$name" --slurpfile config "$LAB_DIR/cri/$pod.config" '
        {pod_sandbox_id: $pod, sandbox_config: $config[0],
         config: {metadata: {name: $name}, image: {image: "localhost/served:1"}, command: $ARGS.positional}}
        ' --args -- "$@")
    cri CreateContainer "$request" | jq -er .container_id >"$LAB_DIR/cri/$name.container" || return 1
    cri StartContainer "{\"container_id\": \"$(cri_id "$name.container")\"}" && cri_remember "$name" "$pod"
}

in_container() {
    local request
    request=$(jq -n --arg id "$(cri_id "$1.container")" '{container_id: $id, cmd: $ARGS.positional}' \
        --args -- "${@:2}")
    cri ExecSync "$request"
}

# cri_pod_removed NAME: as a kubelet does it.
cri_pod_removed() {
    local request
    request="{\"pod_sandbox_id\": \"$(cri_id "$1")\"}"
    cri StopPodSandbox "$request" && cri RemovePodSandbox "$request"
}

# cri_namespace POD: the name of its network namespace.
cri_namespace() {
    local info
    info=$(cri PodSandboxStatus "{\"pod_sandbox_id\": \"$(cri_id "$1")\", \"verbose\": true}" | jq -er .info.info)
    basename "$(jq -er '.runtimeSpec.linux.namespaces[] | select(.type == "network").path' <<<"$info")"
}

# cri_pod_crash POD: its shim and all that runs in it are killed.
cri_pod_crash() {
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    on_host "$CONTAINERD_NODE" sh -c '
        shim=$(pgrep -f "^/usr/bin/containerd-shim-runc-v2 .*-id $1") && children=$(pgrep -P "$shim") &&
        kill -KILL "$shim" && for pid in $children; do
            # The first process of a pod takes the others with it.
            kill -KILL "$pid" 2>/dev/null || [ ! -e "/proc/$pid" ] || exit 1
        done' sh "$(cri_id "$1")"
}

# containerd_dies: alone. What runs in pods goes on.
containerd_dies() {
    kill -KILL "$(pgrep -P "$(lab_pid "containerd-$CONTAINERD_NODE")")" &&
        wait_until 5 lab_gone "containerd-$CONTAINERD_NODE"
}

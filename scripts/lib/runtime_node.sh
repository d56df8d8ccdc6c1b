# shellcheck shell=bash
# A node of the lab as a machine for a container runtime: daemon and runtime share mount and pid namespaces of
# its own, with a /run, and so a /run/netns, and a /var/lib that no other has. Its images are made of busybox
# and the file that is transferred. Sourced after nodes.sh.

# Prints what is missing for such a node, or nothing.
runtime_node_lacks() {
    unshare --mount --pid --fork --mount-proc mount -t tmpfs tmpfs /run 2>/dev/null ||
        { say "the permission to mount"; return; }
    local cgroups probe
    cgroups=$(findmnt -n -f -o TARGET -t cgroup2)
    [[ -n $cgroups ]] || { say "a mounted cgroup2"; return; }
    probe=$cgroups/vswitch-probe-$$
    mkdir "$probe" 2>/dev/null || { say "the permission to make a cgroup"; return; }
    rmdir "$probe"
}

# runtime_lab_up: the underlay, node-a as such a machine, node-b as in every lab, with a pod b1 that serves.
runtime_lab_up() {
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    node_up node-b vxlan node-a
    runtime_node_up node-a vxlan node-b
    pod_plug node-b b1
    servers_up b1
}

# runtime_node_up NODE MODE PEER…: the machine, and vswitchd on it, under `vswitchd supervise` with
# binaries of the node's own. They can be replaced.
runtime_node_up() {
    local node=$1 dir
    dir=$(node_dir "$node")
    mkdir -p "$dir/state"
    machine_up "$node"
    on_host "$node" mount -t tmpfs -o size=1m,mode=0755 tmpfs "$dir/state"
    own_binaries "$dir/bin"
    bin=$dir/bin
    node_config "$@" >"$dir/vswitch.toml"
    runtime_node_start "$node"
}

# machine_up NODE: nothing runs there but its first process (underlay_attach_node made its network).
machine_up() {
    local node=$1 dir outer
    dir=$(node_dir "$node")
    lab_spawn "host-$node" "$node" unshare --mount --pid --fork --kill-child --mount-proc \
        "$root/scripts/lib/runtime_host.sh" "$LAB_DIR" "$dir/host-ready"
    outer=$(lab_pid "host-$node")
    wait_until 10 test -e "$dir/host-ready" ||
        { tail -n 5 "$LAB_DIR/logs/host-$node.log" >&2 && die "The machine of $node does not start"; }
    # unshare ignores SIGTERM; its child does not, and everything there ends with it.
    lab_remember_pid "host-$node" "$(pgrep -P "$outer")"
}

# runtime_node_start NODE: its daemon and the supervisor.
runtime_node_start() {
    local VSWITCHD_ROLE=supervise VSWITCHD_UNDER
    VSWITCHD_UNDER=(nsenter --target "$(lab_pid "host-$1")" --mount --pid --)
    node_start "$1"
}

own_binaries() {
    local name
    mkdir -p "$1"
    for name in vswitchd vswitchctl vswitch-cni; do cp "$bin/$name" "$1/$name"; done
}

# on_host NODE COMMAND…: on that machine, with nothing of our environment.
on_host() {
    local init
    init=$(lab_pid "host-$1") || { say "the machine of $1 does not run" && return 1; }
    shift
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    nsenter --target "$init" --mount --pid --net --cgroup -- \
        sh -c 'echo 0 >/sys/fs/cgroup/init/cgroup.procs && exec "$@"' sh \
        env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

# machine_spawn NODE NAME COMMAND…: a process of that machine, as its service manager would start it.
machine_spawn() {
    local node=$1 name=$2
    shift 2
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    lab_spawn "$name-$node" "$node" nsenter --target "$(lab_pid "host-$node")" --mount --pid --cgroup -- \
        sh -c 'echo 0 >/sys/fs/cgroup/init/cgroup.procs && exec "$@"' sh \
        env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

# containerd_config: of a machine whose cgroup has no controllers, and which may not let a process be less likely to
# be ended for want of memory.
containerd_config() {
    cat <<'TOML'
version = 2

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_cgroup = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
TOML
}

# The supervisor of the node's daemon and the daemon, as we see their pids.
supervisor_of() { pgrep -P "$(lab_pid "vswitchd-$1")"; }
daemon_of() { pgrep -P "$(supervisor_of "$1")"; }

# daemon_ends NODE SIGNAL: and the supervisor starts another.
daemon_ends() {
    local former
    former=$(daemon_of "$1")
    kill "-$2" "$former"
    wait_until 20 daemon_is_another "$1" "$former"
}

daemon_is_another() { [[ $(daemon_of "$1") != "$2" ]] && ctl "$1" status; }

# daemon_upgraded NODE: another file takes the place of its binary, and the daemon is told to stop.
daemon_upgraded() {
    local file
    file=$(node_dir "$1")/bin/vswitchd
    cp "$file" "$file.new"
    mv "$file.new" "$file"
    daemon_ends "$1" TERM && [[ $(stat -Lc %i "/proc/$(daemon_of "$1")/exe") == $(stat -c %i "$file") ]]
}

# supervisor_ends NODE: with its daemon and the descriptors; others are started, and the interfaces opened
# again.
supervisor_ends() {
    kill -KILL "$(supervisor_of "$1")" "$(daemon_of "$1")" || return 1
    wait_until 5 lab_gone "vswitchd-$1" || return 1
    runtime_node_start "$1" && on_host "$1" "$bin/vswitch-cni" --adjust "$(node_socket "$1")"
}

# supervisor_stops NODE: and its daemon.
supervisor_stops() {
    kill -TERM "$(supervisor_of "$1")" && wait_until 10 lab_gone "vswitchd-$1"
}

# runtime_network NODE DIRECTORY: the shipped network, for that node's daemon.
runtime_network() {
    mkdir -p "$2"
    jq --arg socket "$(node_socket "$1")" --arg state "$(node_dir "$1")/state" \
        '.plugins[0] += {socket: $socket, stateDir: $state}' "$root/config/10-vswitch.conflist" \
        >"$2/10-vswitch.conflist"
}

# How many times over the file is what a slow transfer fetches.
readonly SLOW_TIMES=20

# runtime_image NAME COMMAND…: writes an archive NAME.tar as `docker save` does, of an image
# localhost/NAME:1 that executes the command, and prints its path.
runtime_image() {
    local name=$1 dir=$LAB_DIR/image-$1 i
    image_of_busybox "$name"
    blob
    cp "$LAB_DIR/blob" "$dir/root/srv/"
    for ((i = 0; i < SLOW_TIMES; i++)); do cat "$LAB_DIR/blob"; done >"$dir/root/srv/blobs"
    cp "$root/scripts/lib/slow_fetch.sh" "$dir/root/bin/slow_fetch"
    image_archive "$name" "localhost/$name:1" "${@:2}"
}

# image_of_busybox NAME: begins an image with busybox, in image-NAME/root of LAB_DIR.
image_of_busybox() {
    local dir=$LAB_DIR/image-$1 applet
    mkdir -p "$dir/root/bin" "$dir/root/srv" "$dir/root/tmp"
    cp /bin/busybox "$dir/root/bin/"
    for applet in $(/bin/busybox --list); do
        [[ $applet == busybox ]] || ln -sf busybox "$dir/root/bin/$applet"
    done
}

# image_add_programs NAME FILE…: programs of this machine, in the same places, with the libraries that they load.
image_add_programs() {
    local dir=$LAB_DIR/image-$1 program library
    shift
    for program in "$@"; do
        mkdir -p "$dir/root$(dirname "$program")"
        cp -L "$program" "$dir/root$program"
        for library in $(ldd "$program" | grep -o '/[^ ]*'); do
            mkdir -p "$dir/root$(dirname "$library")"
            cp -L "$library" "$dir/root$library"
        done
    done
}

# image_archive NAME TAG COMMAND…: of image-NAME/root in LAB_DIR, which is removed.
image_archive() {
    local name=$1 tag=$2 dir=$LAB_DIR/image-$1
    shift 2
    tar -C "$dir/root" --owner=0 --group=0 -cf "$dir/layer.tar" .
    jq -n --arg architecture "$(dpkg --print-architecture)" \
        --arg layer "sha256:$(sha256sum <"$dir/layer.tar" | cut -d' ' -f1)" \
        '{os: "linux", $architecture, rootfs: {type: "layers", diff_ids: [$layer]},
          config: {Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: $ARGS.positional}}' --args -- "$@" >"$dir/config.json"
    jq -n --arg tag "$tag" \
        '[{Config: "config.json", RepoTags: [$tag], Layers: ["layer.tar"]}]' >"$dir/manifest.json"
    tar -C "$dir" -cf "$LAB_DIR/$name.tar" manifest.json config.json layer.tar
    rm -r "$dir"
    printf '%s' "$LAB_DIR/$name.tar"
}

# served_image: one that serves the file.
served_image() { runtime_image served httpd -f -p "$SERVER_PORT" -h /srv; }

# mark NODE NAMESPACE: another interface of a pod's namespace, with an end in the node's: that goes when the
# namespace does, and with nothing else.
mark() {
    mark_count=$((${mark_count:-0} + 1))
    on_host "$1" ip link add "mark-$mark_count" type veth peer name mark netns "$2"
}

# mark_gone NODE: the newest.
mark_gone() { ! in_ip "$1" link show "mark-$mark_count"; }

# nothing_left NODE: no namespace of a pod, in the runtime's directory or held by a descriptor, and no pod
# that the daemon knows.
nothing_left() {
    [[ -z $(on_host "$1" ls /run/netns) ]] && no_marks "$1" && knows_no_pod "$1"
}

no_marks() { [[ $(in_ip "$1" -oneline link show type veth) != *mark-* ]]; }

knows_no_pod() { ctl "$1" show ports --json | jq -e 'all(.[]; .kind != "pod")'; }

# Each runtime defines `in_container CONTAINER COMMAND…`, for what follows.

# container_pings CONTAINER ADDRESS
container_pings() { in_container "$1" ping -q -c 1 -W 2 "$2"; }

# container_fetches CONTAINER ADDRESS: the file arrives whole.
container_fetches() {
    local sum
    sum=$(in_container "$1" sh -c "wget -q -O - $(url "$2" blob) | sha256sum") || return 1
    [[ $sum == "$(cat "$LAB_DIR/blob.sha256")" ]] || { echo "the file arrived damaged: $sum" && return 1; }
}

# container_is_seen_as CONTAINER SERVER: a server of the lab sees it by the address that we know of it.
container_is_seen_as() {
    local seen wanted
    seen=$(in_container "$1" wget -q -O - "$(url "$(address "$2" 4)" who)") || return 1
    wanted="$(address "$1" 4) $(address "$2" 4)"
    [[ $seen == "$wanted" ]] || { echo "it sees '$seen' instead of '$wanted'" && return 1; }
}

# container_talks CONTAINER: of node-a, with the node and with b1 of node-b.
container_talks() {
    local family
    check "$1 has addresses of the node's prefixes" has_addresses_of node-a "$1"
    check "$1 and b1 see each other by their own addresses" container_is_seen_as "$1" b1
    check "a file comes from b1 to $1" container_fetches "$1" "$(address b1 4)"
    check "$1 reaches the node's own address" container_pings "$1" "${HOST_ADDRESS[node-a]}"
    check "and the node reaches $1" pings node-a "$(address "$1" 4)"
    for family in 4 6; do
        check "$1 reaches b1, IPv$family" container_pings "$1" "$(address b1 "$family")"
        check "b1 fetches a file from $1, IPv$family" transfers b1 "$(address "$1" "$family")"
    done
}

has_addresses_of() {
    [[ $(address "$2" 4) == "${POD_PREFIX4[$1]%0/24}"* && $(address "$2" 6) == "${POD_PREFIX6[$1]%/64}"* ]]
}

# published_port PORT: of node-a leads a host outside the cluster to a container.
published_port() {
    local sum
    sum=$(in_ns outside curl -sS --noproxy '*' --connect-timeout 2 --max-time 10 \
        "http://${HOST_ADDRESS[node-a]}:$1/blob" | sha256sum) || return 1
    [[ $sum == "$(cat "$LAB_DIR/blob.sha256")" ]]
}

# daemon_dies_under CONTAINER PEER: in every way, under a transfer from the peer to the container.
daemon_dies_under() {
    local how
    for how in "killed:daemon_ends node-a KILL" "upgraded:daemon_upgraded node-a"         "killed with its supervisor:supervisor_ends node-a"; do
        transfer_begin "$1" "$(address "$2" 4)"
        # shellcheck disable=SC2086  # Words.
        check "the daemon is ${how%%:*}, and runs again" ${how#*:}
        check "a transfer under way goes on" transfer_goes_on "$1"
        check "and ends, whole" transfer_ends "$1"
    done
}

# state_full_under CONTAINER PEER: node-a's state directory becomes full under a transfer, and the daemon dies.
state_full_under() {
    transfer_begin "$1" "$(address "$2" 4)"
    check "the state directory becomes full" state_fills node-a
    check "the daemon is killed, and runs again" daemon_ends node-a KILL
    check "a transfer under way goes on" transfer_goes_on "$1"
    check "and ends, whole" transfer_ends "$1"
    check_not "status names that no pod can be added" takes_pods node-a
}

state_fills() {
    local file
    file=$(node_dir "$1")/state/filler
    on_host "$1" sh -c "! cat /dev/zero >$file && test -s $file"
}

# state_has_room NODE: and the daemon has found it.
state_has_room() {
    on_host "$1" rm "$(node_dir "$1")/state/filler" && wait_until 20 takes_pods "$1"
}

takes_pods() { ctl "$1" --json status | jq -e '.problems // [] | all(.kind != "adds-fail")'; }

# is_refused_for_room COMMAND…: it fails, and names the reason.
is_refused_for_room() {
    local said
    if said=$("$@" 2>&1); then return 1; fi
    [[ $said == *"No space left on device"* ]] || { printf '%s\n' "$said" && return 1; }
}

# transfer_begin CONTAINER ADDRESS: a slow one, that ends soon after it is told to hurry. SLOW_PATH is what it
# fetches from a server that is a container.
transfer_begin() {
    in_container "$1" rm -f /tmp/hurry /tmp/count
    rm -f "$LAB_DIR"/transfer.*
    slow_transfer "$@" 2>>"$LAB_DIR/logs/transfer.log" &
    wait_until 10 transfer_runs "$1" || die "The transfer of $1 does not begin"
}

# Its end is told by a file, as a check is no parent of it.
slow_transfer() {
    in_container "$1" slow_fetch "$(url "$2" "${SLOW_PATH:-blob/$SLOW_TIMES}")" >"$LAB_DIR/transfer.sum" || true
    : >"$LAB_DIR/transfer.ended"
}

# More has come than when the daemon was there again.
transfer_goes_on() {
    local count
    count=$(in_container "$1" cat /tmp/count)
    wait_until 20 transfer_beyond "$1" "$count"
}

transfer_beyond() { (($(in_container "$1" cat /tmp/count) > $2)); }

transfer_runs() { in_container "$1" test -s /tmp/count; }

# transfer_ends CONTAINER: it still ran, and gave all of the file.
transfer_ends() {
    [[ ! -e $LAB_DIR/transfer.ended ]] || { echo "it ended before it was told to" && return 1; }
    in_container "$1" touch /tmp/hurry
    wait_until 30 test -e "$LAB_DIR/transfer.ended" || { echo "it does not end" && return 1; }
    local wanted
    wanted=$(for ((i = 0; i < SLOW_TIMES; i++)); do cat "$LAB_DIR/blob"; done | sha256sum)
    [[ $(cat "$LAB_DIR/transfer.sum") == "$wanted" ]]
}

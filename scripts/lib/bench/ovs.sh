# shellcheck shell=bash
# Open vSwitch as a side: Debian's, its userspace datapath with a TAP for each pod, in a namespace of its own
# with its own database and run directory, and never a service of the machine. Sourced after peers.sh.
#
# Its main thread forwards what TAPs bring, on the CPU that vswitchd's worker has. Side `ovs` is as it comes;
# `ovs-tso` has userspace-tso-enable, without which its TAPs take no superframes.

readonly OVS_SCHEMA=/usr/share/openvswitch/vswitch.ovsschema

# bench_ovs SIDE COUNT: with so many pods.
bench_ovs() {
    local side=$1 number
    lab_add_ns "$side"
    ovs_start "$side"
    ovs_ask "$side" add-br br0 -- set bridge br0 datapath_type=netdev
    for ((number = 1; number <= $2; number++)); do ovs_pod "$side" "$number"; done
}

# ovs_pod SIDE NUMBER: its TAP, which OVS has opened, is moved into the pod.
ovs_pod() {
    local side=$1 tap=tap$2 pod=$1-$2
    lab_add_ns "$pod"
    ovs_ask "$side" add-port br0 "$tap" -- set interface "$tap" type=tap mtu_request="${POD_MTU[vxlan]}"
    in_ip "$side" link set "$tap" netns "$(ns "$pod")"
    in_ip "$pod" link set "$tap" name eth0 mtu "${POD_MTU[vxlan]}"
    bench_pod_address "$pod" "$2"
}

# ovs_start SIDE
ovs_start() {
    local side=$1 dir=$LAB_DIR/$1 tso=false
    [[ $side != ovs-tso ]] || tso=true
    mkdir "$dir"
    ovsdb-tool create "$dir/conf.db" "$OVS_SCHEMA"
    ovs_spawn "$side" db ovsdb-server "$dir/conf.db" "--remote=punix:$dir/db.sock" "--unixctl=$dir/db.ctl"
    wait_until 10 test -S "$dir/db.sock" || die "ovsdb-server of $side does not listen"
    ovs_ask "$side" --no-wait init
    ovs_ask "$side" --no-wait set Open_vSwitch . "other_config:userspace-tso-enable=$tso"
    ovs_spawn "$side" switch taskset -c "$worker_cpu" ovs-vswitchd "unix:$dir/db.sock" "--unixctl=$dir/switch.ctl"
}

# ovs_spawn SIDE NAME COMMAND…
ovs_spawn() {
    local dir=$LAB_DIR/$1
    lab_spawn "$1-$2" "$1" env OVS_RUNDIR="$dir" OVS_DBDIR="$dir" OVS_LOGDIR="$dir" OVS_SYSCONFDIR="$dir" "${@:3}"
}

# ovs_ask SIDE ARGUMENTS…: ovs-vsctl.
ovs_ask() { ovs-vsctl "--db=unix:$LAB_DIR/$1/db.sock" --timeout=20 "${@:2}"; }

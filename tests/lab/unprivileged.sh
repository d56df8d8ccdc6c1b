#!/bin/bash
# The daemon as its unit runs it: an unprivileged user with the unit's capabilities, no way to
# get more, and the usual limit of locked memory.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly NOBODY=65534

main() {
    local node capabilities built
    capabilities=$(unit_capabilities)
    setup_binaries
    lab_trap
    lab_create
    # That user may not look into the checkout, and has to reach its state in the lab.
    built=$bin
    bin=$LAB_DIR/bin
    mkdir -m 0755 "$bin"
    install -m 0755 "$built"/{vswitchd,vswitchctl,vswitch-cni} "$bin"
    chmod 0711 "$LAB_DIR"
    for node in node-a node-b; do
        mkdir -p "$(node_dir "$node")/state"
        chown -R "$NOBODY" "$(node_dir "$node")"
    done
    # Where udev rules are in force everybody may open it; here, perhaps, root only.
    mknod -m 0666 "$LAB_DIR/tun" c 10 200
    VSWITCHD_UNDER=(
        unshare --mount sh -c "mount --bind '$LAB_DIR/tun' /dev/net/tun && exec \"\$@\"" unit
        setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups --no-new-privs
        --inh-caps "-all,$capabilities" --bounding-set "-all,$capabilities"
        --ambient-caps "-all,$capabilities"
    )
    two_nodes_up vxlan
    check "vswitchd runs as an unprivileged user" runs_as node-a "$NOBODY"
    check "it has the unit's capabilities only" has_only node-a "$capabilities"
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1 outside
    matrix a1 b1
    check "a1 to outside, seen as its node" sees a1 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    check "it counts what a pod's interface loses" counts_losses
    firewall
    check "DEL of a1" pod_unplug node-a a1
    queued
    check "it is drained" node_drain node-a
    check "its table is gone" test -z "$(in_ns node-a nft list tables)"
    check "its XDP program is gone" no_xdp node-a
    report_end
}

# The kernel's list of iptables-legacy's tables is root's alone.
firewall() {
    if ! in_ns node-a iptables-legacy -P FORWARD DROP; then
        skip "a firewall of iptables-legacy" "this machine or its kernel lacks it"
        return
    fi
    check "it names a firewall of iptables-legacy that drops" names_firewall
    in_ns node-a iptables-legacy -P FORWARD ACCEPT
    check_not "and no more once that accepts" names_firewall
}

names_firewall() { ctl node-a status --json | jq -r '.warnings[]' | finds 'FORWARD of iptables-legacy'; }

counts_losses() {
    ctl node-a show ports --json | jq -e 'map(select(.attachment)) | length > 0 and all(.[]; .counters.queue_full == 0)'
}

# The plugin runs as root, and leaves a DEL to this user.
queued() {
    pod_plug node-a a2
    lab_signal vswitchd-node-a KILL
    check "DEL of a2 while it is away" pod_unplug node-a a2
    check "waits for it" test -n "$(ls -A "$(node_dir node-a)/state/del-queue")"
    check "it starts again" node_start node-a
    check "and has no pod" test "$(ctl node-a show ports --json | jq '[.[] | select(.attachment)] | length')" = 0
    check "and nothing waits" test -z "$(ls -A "$(node_dir node-a)/state/del-queue")"
}

# +net_admin,+net_raw,… from the unit.
unit_capabilities() {
    sed -n 's/^AmbientCapabilities=//p' "$root/config/vswitchd.service" |
        tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g'
}

runs_as() { [[ $(stat -c %u "/proc/$(lab_pid "vswitchd-$1")") == "$2" ]]; }

# As many capabilities as words.
has_only() {
    local held
    held=$(sed -n 's/^CapEff:\t*//p' "/proc/$(lab_pid "vswitchd-$1")/status")
    [[ $(/usr/bin/python3 -c 'import sys; print(bin(int(sys.argv[1], 16)).count("1"))' "$held") \
        == $(($(tr -cd + <<<"$2" | wc -c))) ]]
}

no_xdp() { ! in_ip "$1" link show dev eth0 | finds xdp; }

main "$@"

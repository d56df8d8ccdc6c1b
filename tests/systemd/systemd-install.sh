#!/bin/bash
# scripts/install on a machine with systemd, by the steps of docs/operations.md: the units start without
# a word of complaint, pods come by CNI and reach one another, and all of it goes again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/systemd_root.sh
. "$root/scripts/lib/systemd_root.sh"
# shellcheck source=scripts/lib/systemd_node.sh
. "$root/scripts/lib/systemd_node.sh"

readonly UNITS=(vswitchd.socket vswitchd.service vswitch-adjust.path vswitch-adjust.service)

main() {
    setup_binaries
    lab_trap
    lab_create
    systemd_two_nodes_up
    installs
    started
    pods
    started_by_an_add
    stopped
    device_mode
    drained
    uninstalls
    report_end
}

installs() {
    check "scripts/install on a machine that has none of it" systemd_node_install node-a
    systemd_node_config node-a vxlan node-b
    check "the configuration is accepted" \
        inside node-a vswitchd --check --config /etc/vswitch/vswitch.toml
    check "systemd-analyze verify has nothing to say" \
        says_nothing inside node-a systemd-analyze verify --man=no "${UNITS[@]}"
    # Beside ours, nspawn lets none be set.
    check "forwarding" inside node-a sysctl --load /etc/sysctl.d/90-vswitch.conf
}

started() {
    local unit
    check "systemctl enable --now vswitchd" inside node-a systemctl enable --now vswitchd
    for unit in vswitchd.socket vswitchd.service vswitch-adjust.path; do
        check "$unit is active" inside node-a systemctl is-active "$unit"
        check "and enabled" inside node-a systemctl is-enabled "$unit"
    done
    check "vswitchctl status" inside node-a vswitchctl status
    check "the first start gave no warning" says_nothing warnings
    check "the socket is root's alone" inside node-a test -S /run/vswitch/vswitch.sock
    check "the daemon is an unprivileged user" unprivileged
    check "no unit has failed" says_nothing failed_units
}

# Of the units, and systemd's own about them; but for what the lab's NIC is. systemd knows no priority of
# the daemon's lines, and moves a directory by the way.
warnings() {
    local units=("${UNITS[@]/#/--unit=}")
    inside node-a journalctl --quiet --output cat --priority warning "${units[@]}"
    inside node-a journalctl --quiet --output cat "${units[@]}" | grep -E 'WARN|ERROR|migrating' |
        grep -v 'WARN eth0 is a veth' || true
}

failed_units() { inside node-a systemctl list-units --failed --plain --no-legend; }

# says_nothing COMMAND…: it succeeds without a word, or shows its words.
says_nothing() {
    local said
    if said=$("$@" 2>&1) && [[ -z $said ]]; then return 0; fi
    say "$said"
    return 1
}

unprivileged() {
    local pid
    pid=$(inside node-a systemctl show --property MainPID --value vswitchd)
    [[ $(inside node-a stat -c %u "/proc/$pid") -ge 61184 ]]
}

pods() {
    check "ADD of a1" systemd_pod_plug node-a a1
    check "ADD of a2" systemd_pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1 node-a node-b outside
    matrix a1 a2 b1 node-a node-b
    check "a1 to outside, seen as its node" sees a1 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    adjusted
    check "CHECK of a1" systemd_cni node-a CHECK a1 "$(cat "$(node_dir node-a)/pods/a1.json")"
    check "DEL of a1" systemd_pod_unplug node-a a1
    check "all packets are accounted for" packets_accounted
}

# The daemon enters no pod; vswitch-adjust does, when it is asked to.
adjusted() {
    inside node-a sed -i 's/^vni = .*/&\npod_mtu = 1400/' /etc/vswitch/vswitch.toml
    check "systemctl reload" inside node-a systemctl reload vswitchd
    check "gives a live pod another MTU" wait_until 10 link_has_mtu a1 eth0 1400
    check "with which it reaches the other node" talks a1 b1 4
}

# Tried for a while, as packets still come.
packets_accounted() { wait_until 3 accounted_inside; }

accounted_inside() {
    inside node-a vswitchctl show drops --json |
        jq -e '.received > 0 and .received + .made == .sent + .dropped'
}

# systemd listens for the daemon, and starts it when a client connects.
started_by_an_add() {
    check "systemctl stop of the service alone" inside node-a systemctl stop vswitchd.service
    check "an ADD has it started, and succeeds" systemd_pod_plug node-a a3
    check "a3 reaches the other node" wait_until 10 pings a3 "$(address b1 4)"
}

stopped() {
    check "systemctl stop of both ends it" inside node-a systemctl stop vswitchd.socket vswitchd.service
    check "its socket is gone" inside node-a test ! -e /run/vswitch/vswitch.sock
    check "host port and table stay for the next daemon" traces
}

traces() { in_ip node-a link show dev vsw0 && [[ -n $(in_ns node-a nft list tables) ]]; }

# Not as udev makes it: the daemon is no root, and says what is wrong.
device_mode() {
    inside node-a chmod 0600 /dev/net/tun
    check_not "with /dev/net/tun for root alone it does not start" \
        inside node-a systemctl start vswitchd
    check "and says that this is why" journal_has 'its mode is 0600.*chmod 0666 /dev/net/tun'
    inside node-a chmod 0666 /dev/net/tun
    check "once it is right the daemon starts by itself" \
        wait_until 10 inside node-a systemctl is-active vswitchd
}

# journal_has PATTERN: in the daemon's lines.
journal_has() { inside node-a journalctl --quiet --output cat --unit vswitchd | finds -E "$1"; }

# A daemon that has just started without its pods' descriptors leaves their interfaces where they are, and
# vswitch-adjust, which opens them, would have systemd start another.
drained() {
    check "every pod is reached" wait_until 10 all_reached
    check "nothing is left to adjust" wait_until 10 is_inactive vswitch-adjust
    check "vswitchd --drain" inside node-a vswitchd --drain
    check "ends the daemon" wait_until 10 is_inactive vswitchd
    check_not "host port and table are gone" traces
    check_not "so are the pods' interfaces" in_ip a2 link show dev eth0
    check "no unit has failed" says_nothing failed_units
    check "it starts again" inside node-a systemctl start vswitchd
    check "ADD of a4" systemd_pod_plug node-a a4
}

all_reached() { pings a2 "$(address b1 4)" && pings a3 "$(address b1 4)"; }

# is_inactive SERVICE
is_inactive() {
    [[ $(inside node-a systemctl show --property ActiveState --value "$1.service") == inactive ]]
}

uninstalls() {
    check "scripts/install --uninstall" inside node-a /source/scripts/install --uninstall
    check_not "host port and table are gone" traces
    check_not "and the pod's interface" in_ip a4 link show dev eth0
    check "the units are gone" test -z "$(inside node-a systemctl list-unit-files 'vswitch*' --no-legend)"
    check "and no unit has failed" says_nothing failed_units
}

main "$@"

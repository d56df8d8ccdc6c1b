#!/bin/bash
# A machine with systemd reboots: its pods are gone with it; the daemon comes back by itself, holds none of
# their addresses any more, and serves new pods.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/systemd_root.sh
. "$root/scripts/lib/systemd_root.sh"
# shellcheck source=scripts/lib/systemd_node.sh
. "$root/scripts/lib/systemd_node.sh"

main() {
    local boot
    setup_binaries
    lab_trap
    lab_create
    systemd_two_nodes_up
    own_boot_id
    systemd_vswitch_up node-a vxlan node-b
    systemd_pod_plug node-a a1
    systemd_pod_plug node-a a2
    pod_plug node-b b1
    check "a1 reaches the other node" wait_until 10 pings a1 "$(address b1 4)"
    boot=$(boot_id)
    check "the machine reboots" systemd_node_reboot node-a a1 a2
    check "with another boot id" test "$(boot_id)" != "$boot"
    check "the daemon runs again" inside node-a systemctl is-active vswitchd
    check "and so does the path unit" inside node-a systemctl is-active vswitch-adjust.path
    check "vswitchctl status" inside node-a vswitchctl status
    check "no lease of the former life is left" leases_are 0
    check "ADD of a3" systemd_pod_plug node-a a3
    check "it reaches the other node" wait_until 10 talks_to a3
    check "there is one lease" leases_are 1
    report_end
}

talks_to() { pings "$1" "$(address b1 4)" && pings "$1" "$(address b1 6)"; }

# nspawn gives each boot its id by a mount in /proc. The unit, with a /proc of its own, would see the id of
# the machine on which the test runs.
own_boot_id() {
    local id=/proc/sys/kernel/random/boot_id directory=/etc/systemd/system/vswitchd.service.d
    inside node-a mkdir "$directory"
    printf '[Service]\nBindReadOnlyPaths=/run/boot-id:%s\n' "$id" |
        inside_write node-a "$directory/boot-id.conf"
    inside_write node-a /etc/tmpfiles.d/boot-id.conf <<<"C /run/boot-id 0444 - - - $id"
    inside node-a systemd-tmpfiles --create /etc/tmpfiles.d/boot-id.conf
}

boot_id() { inside node-a cat /proc/sys/kernel/random/boot_id; }

# leases_are COUNT: attachments, with an interface or without one.
leases_are() {
    local count
    count=$(inside node-a vswitchctl show ports --json | jq '[.[] | select(.kind == "pod")] | length')
    ((count == $1)) || { echo "there are $count" && return 1; }
}

main "$@"

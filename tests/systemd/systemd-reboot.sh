#!/bin/bash
# A machine with systemd reboots: its pods are gone with it; the daemon comes back by itself, and serves
# new pods.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local boot
    setup_binaries
    lab_trap
    lab_create
    systemd_two_nodes_up
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
    check "ADD of a3" systemd_pod_plug node-a a3
    check "it reaches the other node" wait_until 10 talks_to a3
    report_end
}

talks_to() { pings "$1" "$(address b1 4)" && pings "$1" "$(address b1 6)"; }

boot_id() { inside node-a cat /proc/sys/kernel/random/boot_id; }

main "$@"

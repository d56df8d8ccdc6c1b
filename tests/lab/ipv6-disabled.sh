#!/bin/bash
# Nodes on which new interfaces have no IPv6, by net.ipv6.conf.default.disable_ipv6, and pods are to have it: a
# daemon that may write settings gives its own port IPv6; one that may not, as under its unit, says which setting
# it is and what to do, and starts once that is done.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local log
    setup_binaries
    lab_trap
    lab_create
    log=$LAB_DIR/logs/vswitchd-node-a.log
    underlay_up
    underlay_attach_node node-a
    in_ns node-a sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    VSWITCHD_UNDER=(unshare --mount sh -c
        'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"' read-only)
    check_not "where settings are read-only it does not start" node_up node-a vxlan
    check "the setting is named" finds 'net.ipv6.conf.default.disable_ipv6 is 1' "$log"
    check "and the cure" finds 'sysctl -ew net.ipv6.conf.default.disable_ipv6=0' "$log"
    check_not "and not what the kernel says" finds 'Permission denied' "$log"
    check "the cure" in_ns node-a sysctl -ew \
        net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.vsw0.disable_ipv6=0
    check "with which it starts" node_start node-a
    pod_plug node-a a1
    check "and a pod is reached by IPv6" pings node-a "$(address a1 6)"

    VSWITCHD_UNDER=()
    check "it is drained" node_drain node-a
    in_ns node-a sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    check "where it may write settings it starts" node_start node-a
    check "its port has IPv6" test "$(in_ns node-a sysctl -n net.ipv6.conf.vsw0.disable_ipv6)" = 0
    pod_plug node-a a2
    check "and a pod is reached by IPv6" pings node-a "$(address a2 6)"
    report_end
}

main "$@"

#!/bin/bash
# Bridged attachment: the pods of a node share its prefix as one L2 segment, with ARP
# between them, and reach the other node's pods as routed ones do.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    ATTACHMENT_MODE=bridged
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1 outside
    check "a1 has its prefix's length" in_prefix a1
    matrix a1 a2 b1
    check "a1 resolved a2's own MAC" resolved a1 a2
    check "the switch knows a2's MAC" knows node-a a2
    check "a1 to outside, seen as its node" sees a1 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    report_end
}

in_prefix() { in_ip "$1" -4 -oneline address show dev eth0 | finds '/24 '; }

mac_of() { in_ip "$1" -json link show dev eth0 | jq -r '.[0].address'; }

resolved() {
    in_ip "$1" -json neigh show "$(address "$2" 4)" dev eth0 |
        jq -e --arg mac "$(mac_of "$2")" 'any(.lladdr == $mac)'
}

knows() { ctl "$1" show fdb --json | finds -i "$(mac_of "$2")"; }

main "$@"

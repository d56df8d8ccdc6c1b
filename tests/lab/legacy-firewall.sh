#!/bin/bash
# A firewall of iptables-legacy that drops what it forwards keeps pods from the world, and nft does not list it:
# status names it, of both families, and looking makes no table.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    if ! in_ns outside iptables-legacy -S >/dev/null 2>&1; then
        skip "iptables-legacy" "this machine or its kernel lacks it"
        report_end
        return
    fi
    servers_up outside
    node_up node-a vxlan
    pod_plug node-a a1
    check "a pod fetches from outside" fetch a1 "${HOST_ADDRESS[outside]}" who
    check "status names no firewall" no_attention firewall
    check "and has made no table" no_table
    dropped_and_named
    report_end
}

no_table() { [[ -z $(in_ns node-a cat /proc/net/ip_tables_names /proc/net/ip6_tables_names) ]]; }

dropped_and_named() {
    in_ns node-a iptables-legacy -P FORWARD DROP
    check_not "with iptables-legacy -P FORWARD DROP it does not" fetch a1 "${HOST_ADDRESS[outside]}" who
    named iptables-legacy
    in_ns node-a iptables-legacy -P FORWARD ACCEPT
    check "with ACCEPT no more" no_attention firewall
    in_ns node-a ip6tables-legacy -P FORWARD DROP
    named ip6tables-legacy
    check "and the other family is not" no_attention "FORWARD of iptables-legacy"
    in_ns node-a ip6tables-legacy -P FORWARD ACCEPT
    check "with ACCEPT no more" no_attention firewall
}

# named PROGRAM
named() { check "status names $1" attention "drops what nothing in its chain \`FORWARD of $1\` accepts"; }

attention() { ctl node-a status --json | jq -e --arg words "$1" 'any(.warnings[]; contains($words))'; }

no_attention() { ! attention "$1"; }

main "$@"

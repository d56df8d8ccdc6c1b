#!/bin/bash
# SIGTERM leaves the node as it was found: no vsw0, no route, no nftables table, no XDP program, no
# socket; and the pods' DEL still succeeds without a daemon to ask. What a killed one left is replaced
# by the next, or removed where the next wants none.
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
    underlay_attach_node node-b
    servers_up outside
    traces >"$LAB_DIR/before"

    node_up node-a vxlan node-b
    pod_plug node-a a1
    traces >"$LAB_DIR/during"
    check "while it runs, vsw0 is there" grep -q 'vsw0' "$LAB_DIR/during"
    check "while it runs, the table vswitch is there" grep -q 'table .* vswitch' "$LAB_DIR/during"
    check "while it runs, the NIC has an XDP program" grep -q 'xdp' "$LAB_DIR/during"
    check "a pod reaches the outside" pings a1 "${HOST_ADDRESS[outside]}"

    check "SIGTERM ends it within five seconds" lab_signal vswitchd-node-a TERM
    traces >"$LAB_DIR/after"
    check "links, addresses, routes, tables and XDP are as before" \
        diff "$LAB_DIR/before" "$LAB_DIR/after"
    check "its socket is gone" test ! -e "$(node_socket node-a)"

    check "it starts again" node_start node-a
    check "DEL of the pod" pod_unplug node-a a1
    check "DEL of the pod once more" cni node-a DEL a1
    killed
    lab_stop vswitchd-node-a
    traces >"$LAB_DIR/after"
    check "and again all is as before" diff "$LAB_DIR/before" "$LAB_DIR/after"
    report_end
}

killed() {
    local table config
    config=$(node_dir node-a)/vswitch.toml
    table=$(in_ns node-a nft list table inet vswitch)
    lab_signal vswitchd-node-a KILL
    check "a killed one leaves its table" same_table "$table"
    check "but neither vsw0 nor its routes" no_host_port
    check "the next one starts" node_start node-a
    check "with one table, not two" same_table "$table"

    lab_signal vswitchd-node-a KILL
    printf '\n[host]\nmasquerade = false\n' >>"$config"
    check "one that masquerades nothing starts" node_start node-a
    check "and removes the table that was left" test -z "$(in_ns node-a nft list tables)"
}

same_table() { [[ $(in_ns node-a nft list ruleset) == "$1" ]]; }

no_host_port() { ! { in_ip node-a link show && in_ip node-a route show table all; } | grep vsw0; }

# What a daemon could leave on the node, in words that do not change by themselves.
traces() {
    # Counters, and what the kernel calls the link's state while it settles, are no trace.
    in_ip node-a -details link show | grep -v '^ *\(RX\|TX\)' | sed 's/^[0-9]*: //; s/prog\/xdp.*/xdp/'
    in_ip node-a -oneline address show | sed 's/^[0-9]*: //'
    in_ip node-a route show table all
    in_ip node-a -6 route show table all
    in_ip node-a rule show
    in_ns node-a nft list tables
}

main "$@"

#!/bin/bash
# `vswitchd --drain` leaves the node as it was found: no vsw0, no route, no nftables table, no XDP program,
# no interface in a pod; and the pods' DEL still succeeds. SIGTERM and a kill leave all but the XDP
# program to the next daemon, which replaces it, or removes it where it wants none.
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
    check "links, addresses, routes and tables stay, but no XDP program" left_all_but_xdp
    check "its socket is gone" test ! -e "$(node_socket node-a)"
    check "it starts again" node_start node-a
    check "and takes over what it left" takes_over
    check "its pod has a port again" node_adjust node-a
    check "and reaches the outside" pings a1 "${HOST_ADDRESS[outside]}"

    check "it is drained" drained 1
    check "and not running" wait_until 5 lab_gone vswitchd-node-a
    traces >"$LAB_DIR/after"
    check "links, addresses, routes, tables and XDP are as before it came" \
        diff "$LAB_DIR/before" "$LAB_DIR/after"
    check "the pod has no interface" wait_until 3 lacks_interface a1
    check "nobody can be drained where no daemon runs" refuses_to_drain

    check "it starts once more" node_start node-a
    check "DEL of the pod" pod_unplug node-a a1
    check "DEL of the pod once more" cni node-a DEL a1
    others
    drained 0
    wait_until 5 lab_gone vswitchd-node-a
    traces >"$LAB_DIR/after"
    check "and again all is as before" diff "$LAB_DIR/before" "$LAB_DIR/after"
    supervised
    report_end
}

# The NIC's own lines tell of the program, too.
left_all_but_xdp() {
    ! grep -q xdp "$LAB_DIR/after" &&
        diff <(grep -v 'eth0@\|xdp' "$LAB_DIR/during") <(grep -v 'eth0@' "$LAB_DIR/after")
}

takes_over() {
    traces >"$LAB_DIR/after"
    diff "$LAB_DIR/during" "$LAB_DIR/after"
}

# drained PODS
drained() {
    local output
    output=$(node_drain node-a)
    [[ $output == "drained: $1 pod(s) were detached" ]] || { echo "$output" && return 1; }
}

refuses_to_drain() {
    local output
    output=$("$bin/vswitchd" --config "$(node_dir node-a)/vswitch.toml" --drain 2>&1) && return 1
    echo "$output"
    [[ $output == *"a daemon has to run for that"* ]]
}

lacks_interface() { ! in_ip "$1" link show eth0; }

# A next one with another configuration removes what it does not want.
others() {
    local table config
    config=$(node_dir node-a)/vswitch.toml
    table=$(in_ns node-a nft list table inet vswitch)
    lab_signal vswitchd-node-a KILL
    check "a killed one leaves its table" same_table "$table"
    check "the next one starts" node_start node-a
    check "with one table, not two" same_table "$table"

    lab_signal vswitchd-node-a KILL
    printf '\n[host]\nmasquerade = false\ninterface = "vsw1"\n' >>"$config"
    check "one with another host port that masquerades nothing starts" node_start node-a
    check "and removes the table that was left" test -z "$(in_ns node-a nft list tables)"
    check "and the host port" no_former_host_port
    check "its own is there" in_ip node-a link show vsw1
}

# A supervisor ends with a daemon that was drained.
supervised() {
    VSWITCHD_ROLE=supervise node_start node-a
    check "a supervised one is drained" drained 0
    check "and its supervisor ends" wait_until 5 lab_gone vswitchd-node-a
    traces >"$LAB_DIR/after"
    check "all is as before" diff "$LAB_DIR/before" "$LAB_DIR/after"
}

same_table() { [[ $(in_ns node-a nft list ruleset) == "$1" ]]; }

no_former_host_port() {
    ! { in_ip node-a link show && in_ip node-a route show table all; } | grep vsw0
}

# What a daemon could leave on the node, in words that do not change by themselves.
traces() {
    # Counters, and what the kernel calls the link's state while it settles or nobody has it open, are
    # no trace.
    in_ip node-a -details link show | grep -v '^ *\(RX\|TX\)' |
        sed 's/^[0-9]*: //; s/prog\/xdp.*/xdp/; s/ state [A-Z]*//; s/NO-CARRIER,//; s/,LOWER_UP//'
    in_ip node-a -oneline address show | sed 's/^[0-9]*: //'
    in_ip node-a route show table all | sed 's/ linkdown//'
    in_ip node-a -6 route show table all | sed 's/ linkdown//'
    in_ip node-a rule show
    in_ns node-a nft list tables
}

main "$@"

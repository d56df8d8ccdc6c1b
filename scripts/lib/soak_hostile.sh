# shellcheck shell=bash
# Claims of pods and hosts that mean harm. Sourced after soak_run.sh and soak_attacks.sh.

soak_spoofing() {
    local mode report
    soak_node_up
    # A node that tunnel packets could be sent to.
    ctl node-a peer add node-b "${HOST_ADDRESS[node-b]}" --prefix "${POD_PREFIX4[node-b]}"
    for mode in routed bridged; do
        step "$SOAK_FORGED frames of a $mode pod"
        report=$(forged_by_pod "$mode" "$SOAK_FORGED")
        forged_figures "frames of a $mode pod in another's name"
    done
    accounts_figure "frames in another's name"
}

soak_tunnels() {
    local node report
    two_nodes_up vxlan
    for node in node-a node-b; do soak_hasten "$(lab_pid "vswitchd-$node")"; done
    step "$SOAK_FORGED tunnel packets of a host"
    report=$(forged_by_host "$SOAK_FORGED")
    forged_figures "tunnel packets of a host that is no peer, or in a peer's name"
    accounts_figure "forged tunnel packets"
}

# forged_figures WHAT: of $report.
forged_figures() {
    judge "$report" "$1: none delivered, each counted by its reason" \
        '"\(.sent) of \(.kinds) kinds: \(.delivered) delivered; \(.counted) counted under \([.reasons | keys[] | select(contains(" ") | not)] | length) reasons\(if .left_to_kernel > 0 then ", \(.left_to_kernel) of IPIP left to the kernel, which refused them" else "" end); \(.a_second) a second"' \
        ".sent == $SOAK_FORGED and $FORGED_ALL_COUNTED"
    judge "$report" "$1: the pod that they are for loses nothing" \
        '"\(.traffic.datagrams_lost) of \(.traffic.datagrams) datagrams, \(.traffic.broken | length) of 4 connections; longest gap between two answers \(.traffic.quiet_ms) ms"' \
        "$FORGED_NOTHING_LOST"
    jq -r '.reasons | to_entries[] | "    \(.value.counted) of \(.value.sent) \(.key)"' <<<"$report"
}

accounts_figure() {
    figure "$1: the books close" "$(accounts node-a | tail -n 1)" "$(accounts node-a >/dev/null && echo held || echo short)"
}

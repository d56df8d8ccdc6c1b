# shellcheck shell=bash
# Claims of pods, hosts and clients that mean harm. Sourced after soak_run.sh and soak_attacks.sh.

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

soak_control() {
    local report process what
    soak_node_up
    process=$(lab_pid vswitchd-node-a)
    what="$SOAK_MESSAGES messages, $SOAK_IDLE idle and $SOAK_DRIPPING dripping clients, 200 lengths of up to 4 GiB, 200 clients of another user, $SOAK_DESCRIPTORS messages with descriptors"
    report=$(hostile_clients "$SOAK_MESSAGES" "$SOAK_IDLE" "$SOAK_DRIPPING" "$SOAK_DESCRIPTORS" "$SOAK_CLIENT_ADDS")
    figure "hostile clients: the daemon neither ends nor panics" "$what: $(
        daemon_lives "$process" && echo 'the same process' || echo 'another process, or a panic in its log'
    )" "$(verdict_of daemon_lives "$process")"
    judge "$report" "hostile clients: each is answered or sent away, other users are refused" \
        '"messages: \(.kinds.messages.clients | to_entries | map("\(.value) \(.key)") | join(", ")); lengths: \(.kinds.lengths.clients.refused) refused; other users: \(.kinds.strangers.clients.refused) refused; descriptors: \(.kinds.descriptors.clients | to_entries | map("\(.value) \(.key)") | join(", "))"' \
        "($CLIENTS_ANSWERED) and ($CLIENTS_REFUSED)"
    judge "$report" "hostile clients: descriptors constant" \
        '"\([.kinds[].descriptors_more] | max) more after each kind at most; RSS from \(.memory_kib) KiB to at most \([.kinds[].memory_kib] | max)"' \
        "$CLIENTS_DESCRIPTORS_STEADY"
    judge "$report" "hostile clients: ADD works" \
        '"\([.kinds[].refused] | add) of \([.kinds[] | .adds + .refused] | add) ADDs refused meanwhile\([.kinds[].reasons | keys[]] | unique[:1] | map(", " + .) | join(""))"' \
        "$CLIENTS_ADDS_WORK"
    judge "$report" "hostile clients: ADD at most twice as long" \
        '"\(.quiet.p50_ms) ms in the median without them; \(.kinds | to_entries | map("\(.value.p50_ms) by \(.value.adds) beside \(.key)") | join(", "))"' \
        '[.quiet.p50_ms * 2 >= .kinds[].p50_ms] | all'
}

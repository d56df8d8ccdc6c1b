# shellcheck shell=bash
# Claims of pods that come and go: what faults leave, how long an ADD takes, what lost DELs leave, what GC frees, and
# the daemon's memory. Sourced after soak_restarts.sh.

# Seconds after which what a pod held is free that ended without a DEL, and some more.
readonly SOAK_QUARANTINE_S=70
# Pods of another network, beside those of the one whose GC is called.
readonly SOAK_BESIDE=20

soak_churn() {
    local before report
    soak_node_up
    before=$(descriptors_of "$(lab_pid vswitchd-node-a)")
    step "$SOAK_CHURN pods with faults"
    report=$(churn churn --count "$SOAK_CHURN" --at-once 32 --faults 0.1)
    churn_figure "ADD/DEL churn with faults" "$SOAK_CHURN pods, 32 at once, faults in 10 %" 1
    step "$SOAK_KILLED_ADDS ADDs that are killed, after 32 that are not"
    report=$(churn churn --count "$((SOAK_KILLED_ADDS + 32))" --at-once 32 --faults 1)
    churn_figure "ADDs killed at random, each followed by DEL" "$SOAK_KILLED_ADDS of them" 1
    step "The daemon killed amid $SOAK_AWAY ADDs"
    report=$(churn away --count "$SOAK_AWAY" --daemon "$(lab_pid vswitchd-node-a)")
    wait_until 5 lab_gone vswitchd-node-a
    node_start node-a
    churn_figure "daemon killed amid ADDs, DELs sent while it is away" "$SOAK_AWAY ADDs at once" 5
    holds_nothing && return
    step "Waiting until what these held is free"
    wait_until "$SOAK_QUARANTINE_S" holds_nothing || true
    figure "what a pod held that ended is free later" "$(leases) leases left within $SOAK_QUARANTINE_S s" \
        "$(verdict_of holds_nothing)"
}

# churn_figure CLAIM COUNTS SECONDS: of $report, and of what the daemon has after so many seconds at most.
churn_figure() {
    local more
    wait_until "$3" holds_nothing || true
    wait_until 5 has_descriptors "$before" || true
    more=$(($(descriptors_of "$(lab_pid vswitchd-node-a)") - before))
    report=$(jq --argjson leases "$(leases)" --argjson descriptors "$more" \
        '. + {$leases, $descriptors}' <<<"$report")
    judge "$report" "$1: nothing leaked, no duplicate" \
        "\"$2: \(.leases) leases, \(.interfaces_left) interfaces, \(.namespaces_left) namespaces, \(.descriptors) descriptors left, \(.duplicates) duplicates; \(.killed) plugins killed, \(.adds_failed) of \(.adds) ADDs refused, \(.dels_failed) of \(.dels) DELs failed\"" \
        '[.leases, .interfaces_left, .namespaces_left, .descriptors, .duplicates, .dels_failed] | all(. == 0)'
    jq -r '.reasons | to_entries[] | "    \(.value) \(.key)"' <<<"$report"
}

soak_add_time() {
    local report
    soak_node_up
    # The reference has one family.
    lab_signal vswitchd-node-a TERM
    ipv4_only node-a
    node_start node-a
    soak_hasten "$(lab_pid vswitchd-node-a)"
    report=$(add_times node-a "$SOAK_ADDS" "$SOAK_ROUNDS" 16)
    add_figure "serial p50" serial_p50_ms "$SOAK_ADDS each, IPv4"
    add_figure "p99 of 16 at once" at_once_p99_ms "$SOAK_ROUNDS rounds each, IPv4"
}

# add_figure NAME KEY COUNT
add_figure() {
    judge "$report" "ADD, $1: at most 0.6 of bridge + host-local" \
        "\"\(.ours.$2 / .theirs.$2 * 100 | round / 100): \(.ours.$2) ms to \(.theirs.$2) ms, $3\"" \
        ".ours.$2 / .theirs.$2 <= 0.6"
}

# In parts: what a lost DEL leaves keeps its address for a while, and the node has 254.
soak_lost_dels() {
    local part report left=0 failed=0 done=0 before
    soak_node_up
    before=$(descriptors_of "$(lab_pid vswitchd-node-a)")
    while ((done < SOAK_LOST_DELS)); do
        part=$((SOAK_LOST_DELS - done > 200 ? 200 : SOAK_LOST_DELS - done))
        report=$(churn lost --count "$part" --at-once 8)
        left=$((left + $(jq .namespaces_left <<<"$report")))
        failed=$((failed + $(jq .adds_failed <<<"$report")))
        done=$((done + part))
        step "$done of $SOAK_LOST_DELS"
        ((done == SOAK_LOST_DELS)) || wait_until "$SOAK_QUARANTINE_S" holds_nothing
    done
    wait_until 5 has_descriptors "$before" || true
    figure "lost DELs leave no namespace" \
        "$left of $SOAK_LOST_DELS namespaces left, $(($(descriptors_of "$(lab_pid vswitchd-node-a)") - before)) descriptors; $failed ADDs refused" \
        "$( ((left + failed == 0)) && echo held || echo short)"
}

soak_gc() {
    local report kept=$((SOAK_COLLECTED / 2)) what
    soak_node_up
    lab_signal vswitchd-node-a TERM
    more_addresses node-a
    node_start node-a
    soak_hasten "$(lab_pid vswitchd-node-a)"
    what="$SOAK_COLLECTED pods of a network, $kept of them listed"
    report=$(collected "$SOAK_COLLECTED" "$kept" "$SOAK_BESIDE")
    judge "$report" "GC frees exactly the pods that its list lacks" \
        "\"$what: \(.freed) freed in \(.gc_ms) ms, \(.unlisted_left) left, \(.interfaces_left) interfaces left; of the listed \(.listed_freed) freed, \(.listed_cut_off) without their gateway\"" \
        "$(collected_exactly "$((SOAK_COLLECTED - kept))")"
    judge "$report" "GC touches no pod of another network" \
        "\"$what; $SOAK_BESIDE pods of another: \(.others_touched) changed, \(.others_cut_off) without their gateway\"" \
        "$COLLECTED_NO_OTHER"
}

soak_memory() {
    local daemon before samples=$LAB_DIR/samples report
    SOAK_PODS=4
    soak_node_up
    soak_pods "$SOAK_PODS"
    daemon=$(lab_pid vswitchd-node-a)
    before=$(descriptors_of "$daemon")
    traffic_start
    churn churn --seconds "$((SOAK_WARM_S + SOAK_MEMORY_S))" --count 1 --at-once 2 >"$LAB_DIR/churn.json" &
    local churning=$!
    while kill -0 "$churning" 2>/dev/null; do
        printf '%s %s\n' "$SECONDS" "$(awk '/^VmRSS/ { print $2 }' "/proc/$daemon/status")" >>"$samples"
        sleep 1
    done
    wait "$churning"
    traffic_end
    report=$(jq --argjson more "$(memory_growth "$samples")" \
        --argjson fds "$(($(wait_until 5 has_descriptors "$before" || true; descriptors_of "$daemon") - before))" \
        '. + {more: $more, fds: $fds}' "$LAB_DIR/churn.json")
    local what="$SOAK_MEMORY_S s after the first $SOAK_WARM_S s"
    judge "$report" "soak with churn and traffic: RSS at most 1 MiB more" \
        "\"$what: \(.more) KiB more, \(.adds) pods (\(.adds_failed) refused)\"" '.more <= 1024 and .adds_failed == 0'
    judge "$report" "soak with churn and traffic: descriptors constant" \
        "\"$what: \(.fds) more, \(.namespaces_left) namespaces and \(.interfaces_left) interfaces left\"" \
        '.fds == 0 and .namespaces_left == 0 and .interfaces_left == 0'
    wait_until 10 frames_back || true
    figure "soak with churn and traffic: packet memory conserved" "$(ctl node-a status --json |
        jq -r '[.workers[] | "\(.frames_free) of \(.frames_total) frames free"] | join(", ")'); $(accounts node-a)" \
        "$(frames_back >/dev/null && accounts node-a >/dev/null && echo held || echo short)"
}

# memory_growth SAMPLES: KiB from the median of the ten samples after the first minutes to that of the
# last ten.
memory_growth() {
    awk -v warm="$SOAK_WARM_S" 'NR == 1 { begin = $1 } $1 - begin >= warm { print $2 }' "$1" >"$1.warm"
    echo $(($(tail -n 10 "$1.warm" | sort -n | sed -n 5p) - $(head -n 10 "$1.warm" | sort -n | sed -n 5p)))
}

frames_back() { ctl node-a status --json | jq -e 'all(.workers[]; .frames_free == .frames_total)'; }

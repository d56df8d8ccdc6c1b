# shellcheck shell=bash
# Claims of a restart under traffic: the daemon is killed, its supervisor too, or its file is replaced by
# another build. Sourced after soak_run.sh and soak_node.sh.

readonly SOAK_CONNECTIONS=20

soak_kills() {
    VSWITCHD_ROLE=supervise soak_node_up
    soak_pods "$SOAK_PODS"
    local number former report what="$SOAK_KILLS kills, $SOAK_PODS pods"
    traffic_start
    for ((number = 1; number <= SOAK_KILLS; number++)); do
        progress "kill $number of $SOAK_KILLS"
        former=$(soak_daemon)
        moment
        kill -KILL "$former"
        wait_until 20 is_another "$former"
        sleep "$(random 1.4 1.9)"
    done
    progress_clear
    traffic_end
    report=$(traffic_report)
    figure "kill -9: no pod needs another ADD" "$what: $(pods_changed)" "$(verdict_of pods_same)"
    restart_figures "kill -9" "$what"
    judge "$report" "kill -9: outage p99 at most 100 ms" \
        "\"$what: \(.outage_p99_ms) ms, median \(.outage_p50_ms); longest gap without a kill \(.quiet_ms) ms\"" \
        '.outage_p99_ms <= 100'
    judge "$report" "kill -9: TCP stall at most 300 ms" \
        "\"$what: \(.stall_ms) ms of \(.exchanges) exchanges on $SOAK_CONNECTIONS connections\"" '.stall_ms <= 300'
}

soak_descriptors() {
    VSWITCHD_ROLE=supervise soak_node_up
    soak_pods "$SOAK_PODS"
    local number report what="$SOAK_LOST_DESCRIPTORS times, $SOAK_PODS pods"
    traffic_start
    for ((number = 1; number <= SOAK_LOST_DESCRIPTORS; number++)); do
        progress "$number of $SOAK_LOST_DESCRIPTORS"
        local processes=("$(lab_pid vswitchd-node-a)" "$(soak_daemon)")
        moment
        kill -KILL "${processes[@]}"
        VSWITCHD_ROLE=supervise node_spawn node-a
        soak_hasten "$(lab_pid vswitchd-node-a)"
        until node_adjust node-a >>"$LAB_DIR/logs/adjust.log" 2>&1; do sleep 0.02; done
        wait_until 20 all_up "$SOAK_PODS"
        sleep "$(random 2.0 2.5)"
    done
    progress_clear
    traffic_end
    report=$(traffic_report)
    figure "descriptors lost: no pod needs another ADD" "$what: $(pods_changed)" "$(verdict_of pods_same)"
    judge "$report" "descriptors lost: loss at most downtime + 20 ms" \
        "\"$what: \([.moments[] | .lost - .downtime_ms] | max | round) ms beyond the downtime at most; downtime \([.moments[].downtime_ms] | min | round) to \([.moments[].downtime_ms] | max | round) ms, of a thousand datagrams a second\"" \
        'all(.moments[]; .downtime_ms > 0 and .lost <= .downtime_ms + 20)'
    judge "$report" "descriptors lost: answers go on within 20 ms of the downtime's end (no ARP stall)" \
        "\"$what: \([.moments[] | .outage_ms - .downtime_ms] | max | round) ms after it at most\"" \
        'all(.moments[]; .outage_ms <= .downtime_ms + 20)'
    broken_figure "descriptors lost" "$what"
}

soak_upgrades() {
    local installed=$LAB_DIR/installed builds=("$bin" "${soak_other:-}") number former build report what
    mkdir "$installed"
    cp "$bin"/vswitchd "$bin"/vswitchctl "$bin"/vswitch-cni "$installed/"
    cp "$installed/vswitchd" "$LAB_DIR/build-0"
    if [[ -n $soak_other ]]; then
        cp "$soak_other/vswitchd" "$LAB_DIR/build-1"
    else
        # What follows the ELF is not loaded.
        { cat "$installed/vswitchd" && printf 'another file'; } >"$LAB_DIR/build-1"
        chmod +x "$LAB_DIR/build-1"
        builds[1]='the same build as another file'
    fi
    bin=$installed
    what="$SOAK_UPGRADES upgrades and downgrades (${builds[1]}), $SOAK_PODS pods"
    VSWITCHD_ROLE=supervise soak_node_up
    soak_pods "$SOAK_PODS"
    traffic_start
    for ((number = 1; number <= SOAK_UPGRADES; number++)); do
        progress "upgrade $number of $SOAK_UPGRADES"
        build=$LAB_DIR/build-$((number % 2))
        ln "$build" "$installed/vswitchd.new"
        mv "$installed/vswitchd.new" "$installed/vswitchd"
        former=$(soak_daemon)
        moment
        kill -TERM "$former"
        wait_until 20 is_another "$former"
        [[ $(stat -Lc %i "/proc/$(soak_daemon)/exe") == $(stat -c %i "$build") ]] ||
            die "The daemon that runs is not the file that was installed"
        sleep "$(random 1.4 1.9)"
    done
    progress_clear
    traffic_end
    report=$(traffic_report)
    restart_figures "upgrade" "$what"
}

# restart_figures NAME WHAT: of $report.
restart_figures() {
    judge "$report" "$1: no datagram between pods of the node lost" \
        "\"$2: \(.datagrams_lost) of \(.datagrams); outage \(.outage_p50_ms) ms in the median, \(.outage_p99_ms) at most\"" '.datagrams_lost == 0'
    broken_figure "$@"
}

broken_figure() {
    judge "$report" "$1: no connection broken" \
        "\"$2: \(.broken | length) of $SOAK_CONNECTIONS\(.broken[:1] | map(\", \" + .) | join(\"\"))\"" \
        '.broken == []'
}

# traffic_start: between p1 to p$SOAK_PODS, until traffic_end.
traffic_start() {
    interfaces_of_pods >"$LAB_DIR/interfaces"
    # shellcheck disable=SC2046  # Names of pods.
    traffic_begin "$SOAK_CONNECTIONS" $(seq -f 'p%g' "$SOAK_PODS")
}

# moment: now something is done to the daemon.
moment() { printf '%s\n' "${EPOCHREALTIME/,/.}" >>"$LAB_DIR/moments"; }

# Index, MAC and addresses of each pod's interface.
interfaces_of_pods() {
    local number
    for ((number = 1; number <= SOAK_PODS; number++)); do
        in_ip "p$number" -json address show dev eth0 |
            jq -c --arg pod "p$number" '[$pod, (.[] | .ifindex, .address, [.addr_info[].local])]'
    done
}

pods_same() { [[ -z $(diff "$LAB_DIR/interfaces" <(interfaces_of_pods)) ]]; }

pods_changed() {
    printf '%s have another interface or address' \
        "$(diff "$LAB_DIR/interfaces" <(interfaces_of_pods) | grep -c '^<' || true)"
}

# all_up COUNT: so many pods are forwarded for.
all_up() { ctl node-a status --json | jq -e --argjson count "$1" '.pods == $count'; }

# random FROM TO: with three decimals.
random() { awk -v from="$1" -v to="$2" -v seed="$RANDOM$RANDOM" 'BEGIN { srand(seed); printf "%.3f", from + rand() * (to - from) }'; }

# shellcheck shell=bash
# Pods, hosts of the underlay and clients of the control socket that mean harm: what becomes of them, as reports
# in JSON. scripts/soak has claims of them, lab tests hold a few of each. Sourced after soak_node.sh.

# A host of the underlay that is no node, beside node-a.
HOST_LAN+=([rogue]=lan-a)
HOST_ADDRESS+=([rogue]=198.51.100.66)

# forged_by_pod MODE COUNT: a pod forges so many frames while two others talk, all three attached by MODE. Needs
# a node-a that has node-b for a peer.
forged_by_pod() {
    local mode=$1 count=$2 pod options=()
    [[ $mode != bridged ]] || options+=(--bridged)
    for pod in victim other attacker; do
        CNI_EXTRA="{\"mode\": \"$mode\"}" pod_plug node-a "$mode-$pod"
    done
    forged pod "$count" "demo/$mode-attacker" "$mode-attacker" "$mode-victim" "$mode-other" "${options[@]}"
}

# forged_by_host COUNT: a host of the underlay forges so many tunnel packets while pods of two nodes talk. Needs
# two_nodes_up.
forged_by_host() {
    underlay_attach rogue
    pod_plug node-a victim
    pod_plug node-b remote
    pod_plug node-a other
    forged underlay "$1" eth0 rogue victim other --peer-pod "$(address remote 4)" \
        --stranger "${HOST_ADDRESS[rogue]}" --vni "$VNI"
}

# forged PARTY COUNT PORT ATTACKER VICTIM OTHER OPTION…: a report of soak_attack.py, with that of the traffic
# between VICTIM and a pod that it knows.
forged() {
    local party=$1 count=$2 port=$3 attacker=$4 victim=$5 other=$6 report friend
    shift 6
    friend=$other
    [[ $party == pod ]] || friend=remote
    traffic_begin 4 "$victim" "$friend"
    report=$(soak_python soak_attack "$party" "$(node_socket node-a)" "$count" "$port" "$(ns "$attacker")" \
        "$(ns "$victim")" "$(ns "$other")" "${HOST_ADDRESS[node-a]}" "${HOST_ADDRESS[node-b]}" "$@")
    traffic_end
    jq -c --argjson traffic "$(traffic_report)" '. + {traffic: $traffic}' <<<"$report"
}

# Conditions of such reports.
# shellcheck disable=SC2034  # Scripts that source this use them.
readonly FORGED_ALL_COUNTED='.sent > 0 and .delivered == 0 and .not_heard == 0 and ([.reasons[] | .sent == .counted] | all)'
# shellcheck disable=SC2034
readonly FORGED_NOTHING_LOST='.traffic.datagrams > 0 and .traffic.datagrams_lost == 0 and .traffic.broken == []'

# hostile_clients MESSAGES IDLE DRIPPING DESCRIPTORS ADDS: a report of soak_clients.py. Needs soak_node.
hostile_clients() {
    soak_python soak_clients "$(node_socket node-a)" "$(lab_pid vswitchd-node-a)" "$bin/vswitch-cni" \
        "$LAB_DIR/network.json" "$(ns '')" "$LAB_DIR/namespaces" "$@"
}

# Conditions of its reports: each client is answered or sent away, those of other users too.
# shellcheck disable=SC2034
readonly CLIENTS_ANSWERED='[.kinds[].clients | (.unanswered // 0) + (.cut_off // 0)] | add == 0'
# shellcheck disable=SC2034
readonly CLIENTS_REFUSED='.mode == "0600" and (.kinds.strangers.clients | keys == ["refused"]) and
    (.kinds.lengths.clients | keys == ["refused"]) and (.kinds.messages.clients | has("closed") | not) and
    (.kinds.descriptors.clients | has("taken") | not)'
# shellcheck disable=SC2034
readonly CLIENTS_DESCRIPTORS_STEADY='[.kinds[].descriptors_more] | all(. == 0)'
# shellcheck disable=SC2034
readonly CLIENTS_ADDS_WORK='[.quiet, .kinds[] | .refused] | add == 0'

# daemon_lives PROCESS: it is the same, and has not panicked.
daemon_lives() {
    [[ $(lab_pid vswitchd-node-a) == "$1" ]] && ! grep -q panicked "$LAB_DIR/logs/vswitchd-node-a.log"
}

#!/bin/bash
# Pods with the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, as kubelet hands them over:
# UDP and TCP arrive at the rate, on the node and across nodes, although kubelet gives a burst of 2^31-1 bits;
# pods beside them lose nothing; a daemon that is started anew keeps the limits, and DEL ends them.
# alone: it measures rates
#
# More than the rate must never arrive, whatever the machine does: a receiver that gets no CPU counts late, but
# for a twentieth it would have to begin a quarter of a second late. Less than the rate is held against UDP only
# where its sender sent half more than that. TCP's lasts a hundredth of what the machine carries, and has to fill
# it: what a busy worker sends late, it makes up for.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly RATE_FLOW=(/usr/bin/python3 "$root/tests/lab/rate_flow.py")
readonly FLOW=(/usr/bin/python3 "$root/tests/lab/sequence_flow.py")
# The burst of 1 Mbit/s, 128 KiB, takes a second: the warm-up is longer.
readonly WARM=2 SECONDS_MEASURED=5
readonly KUBELETS_BURST=$(((1 << 31) - 1))
declare -rA RATE=([in20]=20000000 [out20]=20000000 [in1]=1000000 [out1]=1000000)
readonly LIMITED=(in20 out20 in1 out1)
port=7100

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    VSWITCHD_ROLE=supervise node_up node-a vxlan node-b
    node_up node-b vxlan node-a
    local pod
    for pod in "${LIMITED[@]}"; do
        CNI_EXTRA=$(limits "$pod") pod_plug node-a "$pod"
    done
    for pod in x1 x2 a1 a2 a3 a4; do pod_plug node-a "$pod"; done
    for pod in y1 b1 b2 b3 b4; do pod_plug node-b "$pod"; done
    check "the limits are shown" limits_shown
    check "CHECK finds them" checks in20
    check_not "CHECK finds others" checks in20 '{"runtimeConfig": {"bandwidth": {"ingressRate": 5000000}}}'

    beside_begins
    round udp a "on the node"
    round tcp a "on the node"
    round udp b "across nodes"
    round tcp b "across nodes"
    check "pods beside them lost nothing" beside_lost_nothing

    check "what a pod sends too fast waits, and all of it arrives" burst_arrives
    check "the daemon is started anew" restarted
    check "the limits are shown as before" limits_shown
    round udp a "after a restart"

    check "a pod without a limit follows in the place of one with" replaced
    check "and has none" has_no_limit
    check "the books close" accounts node-a
    report_end
}

# limits POD: as kubelet hands its annotation over.
limits() {
    local direction=egress
    [[ $1 == out* ]] || direction=ingress
    printf '{"runtimeConfig": {"bandwidth": {"%sRate": %s, "%sBurst": %s}}}' \
        "$direction" "${RATE[$1]}" "$direction" "$KUBELETS_BURST"
}

limits_shown() {
    ctl node-a show ports --json | jq -e '
        [.[] | select(.bandwidth) | "\(.pod.name) \(.bandwidth.ingress.bits_per_second // 0) \(.bandwidth.egress.bits_per_second // 0)"]
        | sort == ["in1 1000000 0", "in20 20000000 0", "out1 0 1000000", "out20 0 20000000"]' &&
        ctl node-a show ports | finds "INGRESS"
}

# checks POD [CONFIGURATION]
checks() {
    CNI_EXTRA=${2:-$(limits "$1")} cni node-a CHECK "$1" "$(cat "$(node_dir node-a)/pods/$1.json")"
}

# round PROTOCOL PEERS WHERE: all pods with a limit at once, each with a peer of its own.
round() {
    local protocol=$1 peers=$2 where=$3 number=0 pod
    port=$((port + 1))
    for pod in "${LIMITED[@]}"; do
        number=$((number + 1))
        flow_begin "$protocol" "$pod" "$peers$number"
    done
    for pod in "${LIMITED[@]}"; do
        wait_until 40 lab_gone "serve-$pod" || true
        wait_until 20 lab_gone "send-$pod" || true
    done
    for pod in "${LIMITED[@]}"; do
        check "$protocol $where: $pod has its rate, and got $(figure "$pod")" has_rate "$pod"
    done
}

# flow_begin PROTOCOL POD PEER: in the direction that is limited.
flow_begin() {
    local protocol=$1 pod=$2 peer=$3 from=$3 to=$2 rate=${RATE[$2]}
    if [[ $pod == out* ]]; then from=$pod to=$peer; fi
    rm -f "$LAB_DIR/logs/serve-$pod.log" "$LAB_DIR/logs/send-$pod.log"
    lab_spawn "serve-$pod" "$to" "${RATE_FLOW[@]}" serve "$protocol" "$port" "$WARM" "$SECONDS_MEASURED"
    wait_until 5 serves "$protocol" "$to" || return 1
    lab_spawn "send-$pod" "$from" "${RATE_FLOW[@]}" \
        send "$protocol" "$(address "$to" 4)" "$port" $((WARM + SECONDS_MEASURED + 2)) $((rate * 10))
}

# serves PROTOCOL POD
serves() {
    case $1 in
        udp) hears "$2" "$port" ;;
        tcp) listens "$2" "$port" ;;
    esac
}

# figure POD: what arrived, in thousandths of its rate.
figure() { awk -v rate="${RATE[$1]}" '$1 == "rate" { printf "%.3f", $2 / rate }' "$LAB_DIR/logs/serve-$1.log"; }

# has_rate POD: within a twentieth, unless the sender was too slow.
has_rate() {
    awk -v part="$(figure "$1")" -v rate="${RATE[$1]}" '
        $1 == "sent" { is_slow = $2 < rate * 1.5 }
        END { exit !(part > 0 && part <= 1.05 && (part >= 0.95 || is_slow)) }' "$LAB_DIR/logs/send-$1.log"
}

# Between pods without a limit, both ways, on the node and across nodes.
beside_begins() {
    lab_spawn beside-x1 x1 "${FLOW[@]}" "$(address x1 4)" "$(address x2 4)" 7000
    lab_spawn beside-x2 x2 "${FLOW[@]}" "$(address x2 4)" "$(address x1 4)" 7000
    lab_spawn beside-y1 y1 "${FLOW[@]}" "$(address y1 4)" "$(address x1 4)" 7001
    lab_spawn beside-x3 x1 "${FLOW[@]}" "$(address x1 4)" "$(address y1 4)" 7001
}

beside_lost_nothing() {
    local flow
    for flow in x1 x2 y1 x3; do lab_stop "beside-$flow"; done
    tail -qn 1 "$LAB_DIR"/logs/beside-*.log | tee /dev/stderr |
        awk '/^heard [1-9]/ { flows++; lost += $4 } END { exit !(flows == 4 && lost == 0) }'
}

# More than its budget and less than its TAP holds: 400 datagrams take a fifth of a second.
burst_arrives() {
    port=$((port + 1))
    lab_spawn burst-count a1 "${RATE_FLOW[@]}" count "$port" 2
    wait_until 5 hears a1 "$port"
    in_ns out20 "${RATE_FLOW[@]}" burst "$(address a1 4)" "$port" 400
    wait_until 20 lab_gone burst-count
    tail -n 1 "$LAB_DIR/logs/burst-count.log" | tee /dev/stderr | grep -qx "arrived 400" &&
        ctl node-a show ports --json |
        jq -e '.[] | select(.pod.name == "out20") | .counters.rx_delayed > 0'
}

daemon_of() { pgrep -P "$(lab_pid "vswitchd-$1")"; }

restarted() {
    former=$(daemon_of node-a)
    kill -KILL "$former"
    wait_until 20 is_another
}

is_another() { [[ $(daemon_of node-a) != "$former" ]] && ctl node-a status; }

replaced() {
    pod_unplug node-a in1 && pod_unplug node-a out1 && pod_plug node-a free &&
        ctl node-a show ports --json |
        jq -e '[.[] | select(.bandwidth) | .pod.name] | sort == ["in20", "out20"]'
}

# Ten times the rate of the pod before it.
has_no_limit() {
    port=$((port + 1))
    lab_spawn serve-free free "${RATE_FLOW[@]}" serve udp "$port" 0 1
    wait_until 5 hears free "$port"
    lab_spawn send-free a1 "${RATE_FLOW[@]}" send udp "$(address free 4)" "$port" 3 10000000
    wait_until 20 lab_gone serve-free
    tail -n 1 "$LAB_DIR/logs/serve-free.log" | tee /dev/stderr |
        awk '$1 == "rate" { good = $2 > 5000000 } END { exit !good }'
}

main "$@"

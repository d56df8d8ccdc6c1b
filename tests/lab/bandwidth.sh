#!/bin/bash
# Pods with the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, as kubelet hands them over:
# UDP and TCP arrive at the rate, on the node and across nodes, in IPv4 and IPv6, although kubelet gives a burst of
# 2^31-1 bits; pods beside them lose nothing; a daemon that is started anew keeps the limits, and DEL ends them. One
# rate is high enough for superframes, of 10 ms and more.
# alone: it measures rates
#
# More than the rate must never arrive, whatever the machine does: a receiver that gets no CPU counts late, but
# for a twentieth it would have to begin a quarter of a second late, at the high rate a tenth. Nor may less: TCP
# fills the rate by itself; where UDP's sender did not send half more than it, the check is skipped, and says so.
# The high rate is chosen by what the machine carries without a limit.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly RATE_FLOW=(/usr/bin/python3 "$root/tests/lab/rate_flow.py")
readonly FLOW=(/usr/bin/python3 "$root/tests/lab/sequence_flow.py")
# The burst of 1 Mbit/s, 128 KiB, takes a second: the warm-up is longer.
warm=2 measured=5
readonly KUBELETS_BURST=$(((1 << 31) - 1))
# Rates of the pods with a limit, in bits a second; `in-high` and `out-high` join them, if there is a high rate.
declare -A RATE=([in20]=20000000 [out20]=20000000 [in1]=1000000 [out1]=1000000)
readonly LOW=(in20 out20 in1 out1)
# Beyond 52.4 Mbit/s a pod gets superframes.
readonly HIGH_MBITS=(200 100 60)
high=''
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
    for pod in x1 x2 a1 a2 a3 a4; do pod_plug node-a "$pod"; done
    for pod in y1 b1 b2 b3 b4; do pod_plug node-b "$pod"; done
    high_rate
    for pod in "${LOW[@]}" ${high:+in-high out-high}; do
        CNI_EXTRA=$(limits "$pod") pod_plug node-a "$pod"
    done
    check "the limits are shown" limits_shown
    check "CHECK finds them" checks in20
    check_not "CHECK finds others" checks in20 '{"runtimeConfig": {"bandwidth": {"ingressRate": 5000000}}}'

    beside_begins
    round udp a 4 "${LOW[@]}"
    round tcp a 4 "${LOW[@]}"
    round udp b 4 "${LOW[@]}"
    round tcp b 4 "${LOW[@]}"
    round udp b 6 "${LOW[@]}"
    round tcp a 6 "${LOW[@]}"
    check "pods beside them lost nothing" beside_lost_nothing
    [[ -z $high ]] || high_rounds

    check "what a pod sends too fast waits, and all of it arrives" burst_arrives
    check "the daemon is started anew" restarted
    check "the limits are shown as before" limits_shown
    round udp a 4 "${LOW[@]}"

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
    local wanted
    wanted=$(for pod in "${!RATE[@]}"; do
        if [[ $pod == in* ]]; then echo "$pod ${RATE[$pod]} 0"; else echo "$pod 0 ${RATE[$pod]}"; fi
    done | jq -cRs 'split("\n") | map(select(. != "")) | sort')
    ctl node-a show ports --json | jq -e --argjson wanted "$wanted" '
        [.[] | select(.bandwidth) | "\(.pod.name) \(.bandwidth.ingress.bits_per_second // 0) \(.bandwidth.egress.bits_per_second // 0)"]
        | sort == $wanted' &&
        ctl node-a show ports | finds "INGRESS"
}

# checks POD [CONFIGURATION]
checks() {
    CNI_EXTRA=${2:-$(limits "$1")} cni node-a CHECK "$1" "$(cat "$(node_dir node-a)/pods/$1.json")"
}

# high_rate: the highest of which the machine carries twice as much between pods without a limit, on the node and
# across nodes.
high_rate() {
    local mbits node across
    node=$(carried x1 x2) across=$(carried x1 y1)
    say "  without a limit TCP has $node Mbit/s on the node, $across across nodes"
    for mbits in "${HIGH_MBITS[@]}"; do
        if ((node >= 2 * mbits && across >= 2 * mbits)); then
            high=$mbits
            RATE[in-high]=$((mbits * 1000000)) RATE[out-high]=$((mbits * 1000000))
            return 0
        fi
    done
    skip "a rate with superframes" "the machine does not carry ${HIGH_MBITS[-1]} Mbit/s twice"
}

# carried FROM TO: Mbit/s by TCP.
carried() {
    port=$((port + 1))
    lab_spawn "carried-$2" "$2" "${RATE_FLOW[@]}" serve tcp "$port" 0.5 1.5
    wait_until 5 listens "$2" "$port"
    in_ns "$1" "${RATE_FLOW[@]}" send tcp "$(address "$2" 4)" "$port" 4 1000000000
    wait_until 10 lab_gone "carried-$2"
    awk '$1 == "rate" { print int($2 / 1e6) }' "$LAB_DIR/logs/carried-$2.log"
}

# Each alone, in both directions: two would be more than was asked of the machine.
high_rounds() {
    local warm=1 measured=2 protocol peers pod
    for peers in a b; do
        for pod in in-high out-high; do
            for protocol in udp tcp; do round "$protocol" "$peers" 4 "$pod"; done
            [[ $peers == a ]] || round tcp "$peers" 6 "$pod"
        done
    done
}

# round PROTOCOL PEERS FAMILY POD…: these pods at once, each with a peer of its own: `a` on the node, `b` across nodes.
round() {
    local protocol=$1 peers=$2 family=$3 number=0 pod where="on the node"
    shift 3
    [[ $peers == a ]] || where="across nodes"
    port=$((port + 1))
    for pod in "$@"; do
        number=$((number + 1))
        flow_begin "$protocol" "$pod" "$peers$number" "$family"
    done
    for pod in "$@"; do
        wait_until 40 lab_gone "serve-$pod" || true
        wait_until 20 lab_gone "send-$pod" || true
    done
    for pod in "$@"; do
        if sent_too_little "$pod"; then
            skip "$protocol $where, IPv$family: $pod and its rate" "its sender reached only $(sent "$pod") bit/s"
        else
            check "$protocol $where, IPv$family: $pod has its rate, and got $(figure "$pod")" has_rate "$pod"
        fi
    done
}

# flow_begin PROTOCOL POD PEER FAMILY: in the direction that is limited.
flow_begin() {
    local protocol=$1 pod=$2 peer=$3 family=$4 from=$3 to=$2 times=10
    if [[ $pod == out* ]]; then from=$pod to=$peer; fi
    # What a sender reaches without taking the machine from the switch.
    [[ $pod != *-high ]] || times=2
    rm -f "$LAB_DIR/logs/serve-$pod.log" "$LAB_DIR/logs/send-$pod.log"
    lab_spawn "serve-$pod" "$to" "${RATE_FLOW[@]}" serve "$protocol" "$port" "$warm" "$measured"
    wait_until 5 serves "$protocol" "$to" || return 1
    lab_spawn "send-$pod" "$from" "${RATE_FLOW[@]}" \
        send "$protocol" "$(address "$to" "$family")" "$port" $((warm + measured + 2)) $((RATE[$pod] * times))
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

# sent POD: the bits a second that the sender of its flow reached, over UDP.
sent() { awk '$1 == "sent" { print $2 }' "$LAB_DIR/logs/send-$1.log"; }

# sent_too_little POD: over UDP.
sent_too_little() {
    local sent
    sent=$(sent "$1")
    [[ -n $sent ]] && ((sent < RATE[$1] * 3 / 2))
}

# has_rate POD: within a twentieth.
has_rate() { awk -v part="$(figure "$1")" 'BEGIN { exit !(part >= 0.95 && part <= 1.05) }'; }

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

restarted() {
    former=$(node_daemon node-a)
    kill -KILL "$former"
    wait_until 20 is_another
}

is_another() { [[ $(node_daemon node-a) != "$former" ]] && ctl node-a status; }

replaced() {
    pod_unplug node-a in1 && pod_unplug node-a out1 && pod_plug node-a free &&
        ctl node-a show ports --json |
        jq -e '[.[] | select(.bandwidth) | .pod.name] - ["in-high", "out-high"] | sort == ["in20", "out20"]'
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

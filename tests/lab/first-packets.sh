#!/bin/bash
# What a pod sends as soon as it can: a process is in its namespace before the runtime calls ADD, and sends from the
# moment in which the interface lets it. Where the pod may send nothing, nothing arrives: neither while its policies
# are not known, nor when they are, nor of a pod whose policies were known before.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

readonly EAGER=(/usr/bin/python3 "$root/tests/lab/eager_sender.py")
readonly PORT=7300

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a near
    pod_plug node-b far
    sync_policies node-a "$(rule_set deny)" "$(subjects near=/)" >/dev/null
    sync_policies node-b "$(subjects far=/)" >/dev/null
    local pod
    for pod in near far; do
        lab_spawn "count-$pod" "$pod" "${EAGER[@]}" count "$PORT"
        wait_until 5 hears "$pod" "$PORT"
    done
    told_late
    told_before
    check "the drops have their names" named
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# sender_waits POD: in a namespace that has no interface yet.
sender_waits() {
    lab_add_ns "$1"
    local target targets=()
    for target in near far; do
        targets+=("$(address "$target" 4)" "$(address "$target" 6)")
    done
    lab_spawn "send-$1" "$1" "${EAGER[@]}" send "$1" "$PORT" "${targets[@]}"
    wait_until 5 grep -q waits "$LAB_DIR/logs/send-$1.log"
}

# plug POD: as pod_plug, into the namespace that is there.
plug() {
    cni node-a ADD "$1" >"$(node_dir node-a)/pods/$1.json" 2>>"$LAB_DIR/logs/cni-node-a.log"
}

# The ADD waits for policies, two seconds at most; they are told after it has given up waiting.
told_late() {
    sender_waits late
    check "a pod is added whose policies nobody told" plug late
    check "it has sent meanwhile, to each address" has_sent late
    check_not "of what it sent nothing arrived" arrived late
    sync_policies node-a "$(subjects late=/deny)" >/dev/null
    sends_on late
    check_not "nor does anything once it is told that it may send nothing" arrived late
    sync_policies node-a "$(subjects late=/)" >/dev/null
    check "all that it sends arrives once it may" wait_until 5 arrived_everywhere late
    lab_stop send-late
}

# So a cluster's agent has it that saw the pod before its kubelet did.
told_before() {
    sync_policies node-a "$(subjects known=/deny)" >/dev/null
    sender_waits known
    check "a pod is added whose policies are known" plug known
    check "it sends as soon as it can" wait_until 5 has_sent known
    sends_on known
    check_not "and nothing arrives" arrived known
    sync_policies node-a "$(subjects known=/)" >/dev/null
    check "until it may" wait_until 5 arrived_everywhere known
    lab_stop send-known
}

# sent POD: how often it has sent to all addresses.
sent() { tail -n 1 "$LAB_DIR/logs/send-$1.log" | awk '$1 == "sent" { print $2 }'; }

has_sent() { (($(sent "$1") > 0)); }

has_sent_beyond() { (($(sent "$1") > $2)); }

# sends_on POD: a while, in which what was on its way has arrived.
sends_on() { wait_until 10 has_sent_beyond "$1" $(($(sent "$1") + 500)); }

# arrived POD: anything of it, anywhere.
arrived() { finds "^$1 " "$LAB_DIR"/logs/count-*.log; }

# arrived_everywhere POD: at both pods by both families.
arrived_everywhere() {
    local pod family
    for pod in near far; do
        for family in 4 6; do
            finds "^$1 IPv$family\$" "$LAB_DIR/logs/count-$pod.log" || return 1
        done
    done
}

named() { drops node-a policy-pending && drops node-a policy-denied; }

main "$@"

#!/bin/bash
# Pods come and go, many at once, while plugins are killed amid their ADD or DEL: after one more DEL nothing
# stays of any of them, and no two have an address at the same time.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/soak_node.sh
. "$root/scripts/lib/soak_node.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    soak_node
    before=$(descriptors_of "$(lab_pid vswitchd-node-a)")
    check "pods, 16 at once, a fault in every third" leaves_nothing churn --count 64 --at-once 16 --faults 0.33
    check "ADDs that are killed" leaves_nothing churn --count 48 --at-once 8 --faults 1
    check "pods that end without DEL leave no namespace" no_namespace lost --count 32 --at-once 8
    report_end
}

leaves_nothing() {
    local report
    report=$(churn "$@" 2>/dev/null) || return 1
    printf '%s\n' "$report"
    jq -e '.killed > 0 and ([.interfaces_left, .namespaces_left, .duplicates, .adds_failed, .dels_failed] | all(. == 0))' \
        <<<"$report" >/dev/null &&
        { wait_until 5 holds_nothing || { echo "$(leases) leases left" && return 1; }; } &&
        { wait_until 5 has_descriptors "$before" || { echo "more descriptors than before" && return 1; }; }
}

no_namespace() {
    local report
    report=$(churn "$@" 2>/dev/null) || return 1
    printf '%s\n' "$report"
    jq -e '.namespaces_left == 0 and .adds_failed == 0' <<<"$report" >/dev/null
}

main "$@"

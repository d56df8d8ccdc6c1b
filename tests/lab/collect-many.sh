#!/bin/bash
# GC with a list of every other pod of a network frees exactly the others, and no pod of another network.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/soak_node.sh
. "$root/scripts/lib/soak_node.sh"

main() {
    local report
    setup_binaries
    lab_trap
    lab_create
    soak_node
    report=$(collected 40 20 8 2>"$LAB_DIR/logs/collect.log") ||
        die "It broke off: $(tail -n 3 "$LAB_DIR/logs/collect.log")"
    check "exactly those are freed that are not listed" holds "$(collected_exactly 20)"
    check "the other network is left alone" holds "$COLLECTED_NO_OTHER"
    report_end
}

# holds CONDITION: of the report.
holds() {
    jq -e "$1" <<<"$report" >/dev/null || { jq -c . <<<"$report" && return 1; }
}

main "$@"

#!/bin/bash
# A pod sends what it may not, routed and on a segment, and so does a host of the underlay by VXLAN and IPIP:
# thousands of frames of all kinds, of which none comes out, each is counted under the reason that its kind has, and
# pods that talk meanwhile lose nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/soak_node.sh
. "$root/scripts/lib/soak_node.sh"
# shellcheck source=scripts/lib/soak_attacks.sh
. "$root/scripts/lib/soak_attacks.sh"

readonly FRAMES=10000

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    forges "a host of the underlay" forged_by_host "$FRAMES"
    forges "a routed pod" forged_by_pod routed "$FRAMES"
    forges "a bridged pod" forged_by_pod bridged "$FRAMES"
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# forges WHO COMMAND…
forges() {
    local who=$1 report
    shift
    report=$("$@" 2>"$LAB_DIR/logs/forged.log") || { fail "$who forges" "$(tail -n 3 "$LAB_DIR/logs/forged.log")" && return; }
    check "$who: none is delivered, each is counted" holds "$report" ".sent == $FRAMES and $FORGED_ALL_COUNTED"
    check "$who: nothing of others is lost" holds "$report" "$FORGED_NOTHING_LOST"
}

# holds REPORT CONDITION
holds() {
    jq -e "$2" <<<"$1" >/dev/null || { jq -c . <<<"$1" && return 1; }
}

main "$@"

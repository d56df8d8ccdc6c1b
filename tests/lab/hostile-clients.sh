#!/bin/bash
# Clients of the control socket that send nonsense, nothing, byte after byte, lengths of 4 GiB or descriptors that
# are no interface's, and clients of another user: the daemon goes on, keeps no descriptor, and pods are added
# meanwhile.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/soak_node.sh
. "$root/scripts/lib/soak_node.sh"
# shellcheck source=scripts/lib/soak_attacks.sh
. "$root/scripts/lib/soak_attacks.sh"

main() {
    local process report log
    setup_binaries
    lab_trap
    lab_create
    soak_node
    process=$(lab_pid vswitchd-node-a)
    log=$LAB_DIR/logs/clients.log
    # More than the daemon has room for.
    report=$(hostile_clients 400 300 280 72 5 2>"$log") || die "The clients broke off: $(tail -n 3 "$log")"
    check "the daemon neither ended nor panicked" daemon_lives "$process"
    check "each is answered or sent away" holds "$CLIENTS_ANSWERED"
    check "other users are refused, and what is no request" holds "$CLIENTS_REFUSED"
    check "no descriptor stays" holds "$CLIENTS_DESCRIPTORS_STEADY"
    check "pods are added meanwhile" holds "$CLIENTS_ADDS_WORK"
    check "the daemon answers" ctl node-a status
    report_end
}

# holds CONDITION: of the report.
holds() {
    jq -e "$1" <<<"$report" >/dev/null || { jq -c .kinds <<<"$report" && return 1; }
}

main "$@"

#!/bin/bash
# IPIP judged by scapy, which plays node-b and a pod on it: it dissects what node-a sends, answers,
# and sends packets of its own making.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    if ! /usr/bin/python3 -c 'import scapy.all' 2>/dev/null; then
        skip "IPIP judged by scapy" "/usr/bin/python3 has no scapy"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    underlay_attach_node node-b
    node_up node-a ipip node-b
    pod_plug node-a a1
    local line verdict
    while IFS= read -r line; do
        verdict=${line%% *}
        line=${line#* }
        case $verdict in
            pass) pass "$line" ;;
            fail) fail "$line" ;;
            *) say "    $verdict $line" ;;
        esac
    done < <(judge)
    ((passed + failed > 0)) || fail "scapy's judgement" "there was none; see logs/scapy.log"
    report_end
}

judge() {
    in_ns node-b timeout 60 /usr/bin/python3 "$root/tests/lab/ipip_judge.py" \
        "/run/netns/$(ns a1)" "${HOST_ADDRESS[node-a]}" "${HOST_ADDRESS[node-b]}" \
        "$(address a1 4)" 198.18.2.77 "$(address a1 6)" fd00:18:2::77 \
        2>"$LAB_DIR/logs/scapy.log" || echo "fail scapy's judgement: $(tail -n 1 "$LAB_DIR/logs/scapy.log")"
}

main "$@"

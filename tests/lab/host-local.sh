#!/bin/bash
# Addresses from the host-local plugin, with the conflist of the classic tutorial; the other node
# allocates its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local leases
    if [[ ! -x /usr/lib/cni/host-local ]]; then
        skip "addresses from host-local" "there is no /usr/lib/cni/host-local"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    leases=$LAB_DIR/leases
    two_nodes_up vxlan
    pod_plug node-b b1
    cat >"$LAB_DIR/classic.conflist" <<JSON
{
  "cniVersion": "0.3.1",
  "name": "classic",
  "plugins": [{
    "type": "vswitch-cni",
    "ipam": {"type": "host-local", "subnet": "${POD_PREFIX4[node-a]}", "dataDir": "$leases"}
  }]
}
JSON
    CNI_CONFLIST=$LAB_DIR/classic.conflist
    pod_plug node-a a1
    pod_plug node-a a2
    servers_up a1 a2 b1
    check "the result is in version 0.3.1's form" in_form_of_0_3_1 a1
    check "a1 has the address that host-local leased" leased a1
    check "a1 to a2" talks a1 a2 4
    check "a1 to b1" talks a1 b1 4
    check "b1 to a1" talks b1 a1 4
    check "DEL of a1" pod_unplug node-a a1
    check "a1's lease is gone" test -z "$(grep -l "$(ns a1)" -r "$leases/classic" || true)"
    check "a2's lease stays" leased a2
    check "a2 still reaches b1" talks a2 b1 4
    report_end
}

in_form_of_0_3_1() {
    jq -e '.cniVersion == "0.3.1" and all(.ips[]; .version == "4" and .interface >= 0)' \
        "$(node_dir node-a)/pods/$1.json"
}

leased() { grep -q "$(ns "$1")" "$LAB_DIR/leases/classic/$(address "$1" 4)"; }

main "$@"

#!/bin/bash
# A pod with two interfaces of one node, each with addresses of its own: what each carries beside the other,
# with and without source routing by the reference plugin sbr, and what is left when the first goes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local family
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    node_up node-a vxlan
    pod_plug node-a peer
    pod_plug node-a two
    check "the pod gets a second interface" second ADD
    remember_second
    servers_up two peer
    check "CHECK of the first" cni node-a CHECK two "$(result)"
    check "CHECK of the second" second CHECK "$(second_result)"
    for family in 4 6; do
        check "the default route is the first's, IPv$family" default_by eth0 "$family"
        check "the pod talks to another, IPv$family" talks two peer "$family"
        check "and is reached, IPv$family" talks peer two "$family"
    done
    check "what is bound to the second goes by it" in_ns two ping -q -n -c 2 -i 0.2 -w 2 -I net1 "$(address peer 4)"
    if [[ -x /usr/lib/cni/sbr ]]; then
        check "sbr behind vswitch-cni" source_routed
        for family in 4 6; do
            check "the second's address is reached, IPv$family" pings peer "$(address second "$family")"
            check "from the node, too, IPv$family" pings node-a "$(address second "$family")"
            check "the first's as before, IPv$family" talks peer two "$family"
        done
        check "CHECK of the second, whose routes sbr has moved" second CHECK "$(second_result)"
    else
        skip "source routing" "there is no /usr/lib/cni/sbr"
    fi
    check "DEL of the first" cni node-a DEL two "$(result)"
    check "CHECK of the second alone" second CHECK "$(second_result)"
    check "it leads to its gateway" in_ns two ping -q -n -c 2 -i 0.2 -w 2 -I net1 "$(address node-a 4)"
    if [[ -x /usr/lib/cni/sbr ]]; then
        check "and is reached" pings peer "$(address second 4)"
    fi
    check "DEL of the second" second DEL "$(second_result)"
    check "the daemon has the other pod alone" has_one_pod
    report_end
}

result() { cat "$(node_dir node-a)/pods/two.json"; }

second_result() { cat "$LAB_DIR/second.json"; }

# second COMMAND [PREVIOUS_RESULT]: as a runtime does for the pod's second interface.
second() {
    if [[ $1 == ADD ]]; then
        CNI_IFNAME=net1 cni node-a ADD two >"$LAB_DIR/second.json"
    else
        CNI_IFNAME=net1 cni node-a "$1" two "$2"
    fi
}

remember_second() {
    pod_address "$LAB_DIR/second.json" '\.' >"$LAB_DIR/addresses/second.4"
    pod_address "$LAB_DIR/second.json" ':' >"$LAB_DIR/addresses/second.6"
}

# default_by IFNAME FAMILY
default_by() {
    [[ $(in_ip two "-$2" -json route show default | jq -r '[.[].dev] | join(" ")') == "$1" ]]
}

# As a chain in the conflist has it.
source_routed() {
    second_result | jq '{cniVersion, name: "pods", type: "sbr", prevResult: .}' |
        in_ns node-a env -i PATH="$PATH" CNI_COMMAND=ADD CNI_CONTAINERID="$(ns two)" CNI_IFNAME=net1 \
            CNI_NETNS="/run/netns/$(ns two)" CNI_PATH=/usr/lib/cni /usr/lib/cni/sbr
}

has_one_pod() {
    [[ $(ctl node-a show ports --json | jq '[.[] | select(.attachment)] | length') == 1 ]]
}

main "$@"

#!/bin/bash
# Two networks on one daemon, each with a configuration of its own: GC of the one frees its own pods that
# its runtime does not list, attached or not, and leaves the other network's alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local name
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    node_up node-a vxlan
    for name in one two; do
        jq --arg name "$name" '.name = $name' "$root/config/10-vswitch.conflist" >"$LAB_DIR/$name.conflist"
    done
    CNI_CONFLIST=$LAB_DIR/one.conflist
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-a gone
    CNI_CONFLIST=$LAB_DIR/two.conflist
    pod_plug node-a b1
    servers_up a1 a2 b1
    check "every pod has its network's name" networks "one one one two"

    CNI_CONFLIST=$LAB_DIR/one.conflist
    check "GC of network one, which lists two of its three pods" collect a1 a2
    check "the third is gone" networks "one one two"
    check "a pod of network two has its interface" in_ip b1 link show dev eth0
    check "and reaches one of network one" talks b1 a1 4
    check "and is reached" talks a2 b1 6
    check "GC without a list is refused" fails_with 7 GC '{}'
    check "and frees nothing" networks "one one two"
    check "GC of network one with an empty list" collect
    check "frees its own" networks "two"
    check "and the node still reaches the pod of network two" pings node-a "$(address b1 4)"
    report_end
}

# collect POD…: GC with these pods as the runtime's list.
collect() {
    local listed=() pod
    for pod in "$@"; do listed+=("$(ns "$pod")"); done
    CNI_EXTRA=$(jq -n '{cniVersion: "1.1.0",
        "cni.dev/valid-attachments": [$ARGS.positional[] | {containerID: ., ifname: "eth0"}]}' \
        --args "${listed[@]}") cni node-a GC none
}

# fails_with CODE COMMAND EXTRA
fails_with() {
    local said
    said=$(CNI_EXTRA=$(jq '. + {cniVersion: "1.1.0"}' <<<"$3") cni node-a "$2" none) && return 1
    jq -e --argjson code "$1" '.code == $code' <<<"$said"
}

# networks NAMES: of the pods that the daemon has, in order.
networks() {
    [[ $(ctl node-a show ports --json |
        jq -r '[.[] | select(.attachment) | .network] | sort | join(" ")') == "$1" ]]
}

main "$@"

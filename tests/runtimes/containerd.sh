#!/bin/bash
# Debian's containerd, asked through its CRI as a kubelet asks it, on a machine of its own: pods of one and of
# two containers, which talk to each other, to their node, to a pod of another node, and with the world through
# a hostPort, while the daemon under them is killed, upgraded, killed with its supervisor, and out of room, and while
# containerd itself dies. Whatever ends them, nothing of them stays.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/runtime_node.sh
. "$root/scripts/lib/runtime_node.sh"
# shellcheck source=scripts/lib/containerd_node.sh
. "$root/scripts/lib/containerd_node.sh"

readonly HOST_PORT=18080

main() {
    local pod third
    setup_packages containerd
    setup_binaries
    lab_trap
    lab_create
    runtime_lab_up
    containerd_up node-a >/dev/null

    check "a pod starts, with a hostPort" cri_pod single "$HOST_PORT"
    check "a container in it" cri_container single single-server
    check "another pod starts" cri_pod pair
    check "a container in it" cri_container pair pair-server
    check "and a second" cri_container pair pair-client sleep 36000
    container_talks single-server
    check "the hostPort leads to the container" published_port "$HOST_PORT"
    daemon_dies_under single-server b1
    state_full
    container_talks pair-client
    check "the pods reach each other" container_fetches pair-client "$(address single 4)"
    check "containers of a pod share its network" container_fetches pair-client 127.0.0.1

    check "a third pod starts" cri_pod third
    for pod in single pair third; do mark node-a "$(cri_namespace "$pod")"; done
    check "containerd is killed" containerd_dies
    check "b1 fetches a file from a pod meanwhile" transfers b1 "$(address single 4)"
    check "containerd starts again" containerd_start
    check "and its containers have the network" container_fetches pair-client "$(address b1 4)"
    third=$(cri_namespace third)
    check "containerd is killed again" containerd_dies
    check "and a pod with all that runs in it" cri_pod_crash pair
    check "and another" cri_pod_crash third
    check "whose namespace goes too, as at a reboot" on_host node-a ip netns del "$third"
    check "with its interface, though nobody sends a DEL" wait_until 5 mark_gone node-a
    check "containerd starts again" containerd_start
    check "it removes the pod that was killed" cri_pod_removed pair
    check "and the one that has no namespace" cri_pod_removed third
    check "the daemon is stopped" supervisor_stops node-a
    check "the pod that runs is removed meanwhile" cri_pod_removed single
    check "the daemon starts" runtime_node_start node-a
    check "nothing of them is left" wait_until 5 nothing_left node-a
    report_end
}

# A pod more is refused as long as there is no room, and one can always be removed.
state_full() {
    check "a pod more starts" cri_pod spare
    state_full_under single-server b1
    check "another is refused, with the reason" is_refused_for_room cri_pod refused
    check "one that runs is removed" cri_pod_removed spare
    check "there is room again" state_has_room node-a
    check "another starts" cri_pod spare
    check "and is removed" cri_pod_removed spare
}

main "$@"

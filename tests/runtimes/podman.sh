#!/bin/bash
# Debian's podman with its CNI backend, on a machine of its own: a container and a pod of several, which talk
# to each other, to their node, to a pod of another node, and with the world through a published port, while
# the daemon under them is killed, upgraded, killed with its supervisor, and out of room. Whatever ends them, nothing
# of them stays.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/runtime_node.sh
. "$root/scripts/lib/runtime_node.sh"
# shellcheck source=scripts/lib/podman_node.sh
. "$root/scripts/lib/podman_node.sh"

readonly PUBLISHED_PORT=18080

main() {
    setup_packages podman
    setup_binaries
    lab_trap
    lab_create
    runtime_lab_up
    podman_up node-a >/dev/null

    check "a container starts, with a published port" \
        podman_run single --publish "$PUBLISHED_PORT:$SERVER_PORT"
    check "a pod of two containers starts" podman_pod pair
    container_talks single
    check "the published port leads to the container" published_port "$PUBLISHED_PORT"
    isolated
    daemon_dies_under single b1
    state_full
    ended_silently
    container_talks pair-client
    check "the pod reaches the container" container_fetches pair-client "$(address single 4)"
    check "containers of a pod share its network" container_fetches pair-client 127.0.0.1

    mark node-a "$(podman_namespace single)"
    check "a container is started again" podman_on restart --time 0 single
    check "its new addresses are known" podman_remember single single
    check "and it has the network" container_fetches single "$(address b1 4)"
    mark node-a "$(podman_namespace single)"
    podman_crash single
    check "a container that was killed with its monitor is removed" podman_on rm --force --time 0 single
    check "the daemon is stopped" supervisor_stops node-a
    check "a pod is removed meanwhile" podman_on pod rm --force --time 0 pair
    check "the daemon starts" runtime_node_start node-a
    check "of those that were removed, and of one that ended without a word, nothing is left after a while" \
        wait_until 70 nothing_left node-a
    check "podman removes what it knows of that one" podman_on rm --force --time 0 silent
    report_end
}

# A policy of the configuration has containers by their names, and a pod of several by its own.
isolated() {
    local config
    config=$(node_dir node-a)/vswitch.toml
    cp "$config" "$config.without"
    printf '%s\n' '[[policies]]' 'name = "single"' 'pods = ["single"]' \
        'ingress = [{ from = [{ pods = ["pair"] }] }]' >>"$config"
    check "a policy is reloaded" reload
    check "it selects the container" finds "^single  *ingress  *policies  *network  *1  *vswitch.toml/single$" \
        <<<"$(ctl node-a show policies)"
    check "a container that it allows reaches it" container_fetches pair-client "$(address single 4)"
    check_not "another pod does not" fetch b1 "$(address single 4)" blob
    cp "$config.without" "$config"
    check "the policy is removed" reload
    check "and the other pod reaches it" transfers b1 "$(address single 4)"
}

reload() {
    local log=$LAB_DIR/logs/vswitchd-node-a.log before
    before=$(reloads "$log")
    kill -HUP "$(daemon_of node-a)"
    wait_until 5 reloaded_since "$log" "$before"
}

# A container more is refused as long as there is no room, and one can always be removed.
state_full() {
    check "another container starts" podman_run spare
    state_full_under single b1
    check "a container more is refused, with the reason" is_refused_for_room podman_run refused
    check "what podman keeps of it is removed" podman_on rm refused
    check "one that runs is removed" podman_on rm --force --time 0 spare
    check "there is room again" state_has_room node-a
    check "a container more starts" podman_run spare
    check "and is removed" podman_on rm --force --time 0 spare
}

# Killed, and its namespace removed, without a DEL. What it held is free after half a minute.
ended_silently() {
    local namespace
    check "another container starts" podman_run silent
    namespace=$(podman_namespace silent)
    mark node-a "$namespace"
    podman_crash silent
    check "it ends, and its DEL is never sent" on_host node-a ip netns del "$namespace"
    check "its interface goes at once" wait_until 5 mark_gone node-a
}

main "$@"

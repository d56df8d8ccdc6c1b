#!/bin/bash
# A pod that ends leaves nothing, by whatever the daemon hears of it first, and what it held is free though
# no DEL comes. A TAP's descriptor keeps the network namespace alive in which it was opened: so the daemon
# closes it when the path of the namespace is removed, when the process ends that the path names, at DEL,
# and at its start for pods that ended while none ran.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    node_up node-a vxlan

    pod_plug node-a silent
    lab_delete_ns silent
    pod_plug node-a p1 && marked p1
    lab_delete_ns p1
    check "a pod that ends without DEL takes its namespace with it" wait_until 3 ended p1
    check "show ports has it down" shows_down p1
    check "its DEL comes late, and succeeds" late_del p1

    pod_plug node-a p2 && marked p2
    lab_signal vswitchd-node-a KILL
    lab_delete_ns p2
    check "one that ends while no daemon runs" wait_until 3 ended p2
    check "the daemon starts" node_start node-a
    check "DEL" late_del p2

    pod_plug node-a p3 && marked p3
    lab_signal vswitchd-node-a KILL
    check "the daemon starts again" node_start node-a
    check "the pod's interface is opened again" node_adjust node-a
    check "the pod reaches the node" pings p3 "$(gateway4 node-a)"
    lab_delete_ns p3
    check "one that was opened again, and ends" wait_until 3 ended p3
    check "DEL of it" late_del p3

    of_a_process
    without_namespace
    many
    lost
    check "what a pod held that ended without a word is free after a while" wait_until 70 lacks_lease silent
    reboot
    report_end
}

# marked POD: another interface of its namespace, with an end in the node's: that goes when the namespace
# does, and with nothing else.
marked() {
    in_ip node-a link add "mark-$1" type veth peer name mark netns "$(ns "$1")"
}

ended() { ! in_ip node-a link show "mark-$1"; }

shows_down() {
    ctl node-a show ports --json | jq -e --arg pod "demo/$1" '.[] | select(.name == $pod) | .up == false'
}

late_del() { cni node-a DEL "$1"; }

# A path that names a process, as some runtimes give it.
of_a_process() {
    local pid
    lab_add_ns p4
    lab_spawn process-p4 p4 unshare --net sleep 600
    pid=$(lab_pid process-p4)
    wait_until 5 has_own_namespace "$pid"
    CNI_NETNS_PATH=/proc/$pid/ns/net cni node-a ADD p4 >"$LAB_DIR/p4.json"
    in_ip node-a link add mark-p4 type veth peer name mark netns "$pid"
    check "a pod of a process reaches the node" \
        nsenter --net="/proc/$pid/ns/net" ping -n -c 1 -W 2 "$(gateway4 node-a)"
    lab_stop process-p4
    check "the pod of a process ends with it" wait_until 3 ended p4
    CNI_NETNS_PATH=/proc/$pid/ns/net check "DEL with a path that is gone succeeds" cni node-a DEL p4
}

# Not the one any more in which it was started.
has_own_namespace() {
    [[ $(stat -Lc %i "/proc/$1/ns/net") != $(stat -Lc %i "/run/netns/$(ns p4)") ]]
}

# A runtime that has lost the path: DEL without one ends the interface all the same.
without_namespace() {
    pod_plug node-a p5
    CNI_NETNS_PATH='' check "DEL without a namespace succeeds" cni node-a DEL p5
    check "and the interface is gone from the pod" wait_until 3 lacks_interface p5
}

lacks_interface() { ! in_ip "$1" link show eth0; }

# No namespace of pods that ended without DEL stays.
many() {
    local number
    for number in {1..20}; do
        pod_plug node-a "m$number" && marked "m$number"
        lab_delete_ns "m$number"
    done
    check "of twenty such pods nothing is left" wait_until 5 all_ended
    check "nor a descriptor" wait_until 5 few_descriptors
}

# An interface that is deleted in its pod is nothing that the daemon can make again.
lost() {
    pod_plug node-a p6
    in_ip p6 link delete eth0
    check "a pod that has lost its interface is named in status" wait_until 5 attention "lost their interface"
    check "by its name" attention "demo/p6"
    lab_signal vswitchd-node-a KILL
    node_start node-a
    node_adjust node-a || true
    check "and after a restart" wait_until 5 attention "lost their interface"
    check "DEL of it" pod_unplug node-a p6
    check "then it is not" no_attention "lost their interface"
}

attention() { ctl node-a status --json | jq -e --arg words "$1" 'any(.warnings[]; contains($words))'; }
no_attention() { ! attention "$1"; }

lacks_lease() { ctl node-a show ports --json | jq -e --arg pod "demo/$1" 'all(.[]; .name != $pod)'; }

# The state directory is kept, everything else is new: the kernel says so by another boot id.
reboot() {
    local number
    for number in {1..3}; do pod_plug node-a "r$number"; done
    lab_signal vswitchd-node-a KILL
    for number in {1..3}; do lab_delete_ns "r$number"; done
    in_ip node-a link delete vsw0
    printf '11111111-2222-3333-4444-555555555555\n' >"$LAB_DIR/boot_id"
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    VSWITCHD_UNDER=(unshare --mount sh -c
        'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$LAB_DIR/boot_id")
    check "after a reboot it starts" node_start node-a
    for number in {1..3}; do check "no lease of pod $number stays" lacks_lease "r$number"; done
}

all_ended() { ! in_ip node-a -oneline link show type veth | grep -q mark-; }

few_descriptors() {
    local taps=("/proc/$(lab_pid vswitchd-node-a)/fd/"*)
    (($(readlink "${taps[@]}" | grep -c '^/dev/net/tun$') == 1))
}

main "$@"

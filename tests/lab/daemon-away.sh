#!/bin/bash
# A daemon that is killed amid ADDs, or hangs: every command ends, with the code that a runtime acts upon;
# and the DELs that come meanwhile are not lost, so that no lease and no interface stays.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

PODS=20

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    node_up node-a vxlan
    pod_plug node-a stays
    killed_amid_adds
    hangs
    report_end
}

killed_amid_adds() {
    local number
    for ((number = 1; number <= PODS; number++)); do lab_add_ns "p$number"; done
    for ((number = 1; number <= PODS; number++)); do
        cni node-a ADD "p$number" >"$LAB_DIR/p$number.result" 2>>"$LAB_DIR/logs/cni-node-a.log" &
    done
    wait_until 10 some_are_added
    lab_signal vswitchd-node-a KILL
    wait_for_adds
    lab_add_ns late
    check "ADD while it is away is to be tried again" fails_with 11 ADD late
    check "STATUS: pods have no network" fails_with 51 STATUS none
    check "GC fails" gc_fails
    check "CHECK fails" check_fails
    check "DEL of each of $PODS pods" del_all
    check "and once more" del_all
    check "no pod has an interface" no_interface
    check "it starts" node_start node-a
    check "and holds the one pod that was not deleted" holds stays
    check "nothing waits any more" test -z "$(queue)"
    check "ADD succeeds" cni node-a ADD p1
    check "and DEL" cni node-a DEL p1
    check "and holds that one pod again" holds stays
}

some_are_added() { [[ -n $(find "$LAB_DIR" -maxdepth 1 -name 'p*.result' -size +0) ]]; }

wait_for_adds() {
    local job
    for job in $(jobs -p); do wait "$job" || true; done
}

del_all() {
    local number
    for ((number = 1; number <= PODS; number++)); do cni node-a DEL "p$number" || return 1; done
}

no_interface() {
    local number
    for ((number = 1; number <= PODS; number++)); do
        ! in_ip "p$number" link show dev eth0 2>/dev/null || return 1
    done
}

# Its process is stopped: connections are made, and nobody answers.
hangs() {
    local pid
    check "another pod" cni node-a ADD p2
    pid=$(lab_pid vswitchd-node-a)
    kill -STOP "$pid"
    check "ADD to a daemon that hangs is to be tried again" fails_with 11 ADD p1
    check "STATUS: pods have no network" fails_with 51 STATUS none
    check "GC fails" gc_fails
    check "CHECK fails" check_fails
    check "VERSION is answered" answers_version
    check "DEL succeeds" cni node-a DEL p2
    check "and waits" test -n "$(queue)"
    kill -CONT "$pid"
    check "it goes on, and detaches the pod" wait_until 10 holds stays
    check "nothing waits any more" wait_until 10 queue_is_empty
    check "STATUS: all is well" wait_until 10 status_is_fine
}

# A daemon that hangs does it all the same when it goes on: the list names the pod that stays.
gc_fails() {
    fails_with 11 GC none "{\"cni.dev/valid-attachments\":
        [{\"containerID\": \"$(ns stays)\", \"ifname\": \"eth0\"}]}"
}

check_fails() { ! cni node-a CHECK stays "$(cat "$(node_dir node-a)/pods/stays.json")"; }

answers_version() {
    CNI_COMMAND=VERSION "$bin/vswitch-cni" </dev/null | jq -e '.supportedVersions | length == 4'
}

# fails_with CODE COMMAND POD [EXTRA]
fails_with() {
    local said extra=${4:-}
    said=$(CNI_EXTRA=$(jq '. + {cniVersion: "1.1.0"}' <<<"${extra:-{\}}") cni node-a "$2" "$3") && return 1
    jq -e --argjson code "$1" '.code == $code' <<<"$said"
}

status_is_fine() { CNI_EXTRA='{"cniVersion": "1.1.0"}' cni node-a STATUS none; }

# holds POD: the daemon has the lease of this pod and no other.
holds() {
    [[ $(ctl node-a show ports --json | jq -r '[.[] | .attachment.container_id // empty] | join(" ")') == \
        "$(ns "$1")" ]]
}

queue() { ls -A "$(node_dir node-a)/state/del-queue"; }

queue_is_empty() { [[ -z $(queue) ]]; }

main "$@"

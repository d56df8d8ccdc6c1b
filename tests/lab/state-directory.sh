#!/bin/bash
# The state directory is full, read-only, unreadable, or has a link in the journal's place: the daemon
# runs, ADD is refused with the reason, STATUS fails with it, DEL succeeds; and all is well by itself
# when the cause is gone. The directory is a tmpfs of its own, in a mount namespace that outlives the
# daemon.
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
    state=$(node_dir node-a)/state
    mkdir -p "$state"
    # The first version of CNI that has STATUS.
    CNI_CONFLIST=$LAB_DIR/conflist
    jq '.cniVersion = "1.1.0"' "$root/config/10-vswitch.conflist" >"$CNI_CONFLIST"
    disk_up
    check "vswitchd starts with its state on a disk of its own" node_up node-a vxlan
    local pod
    for pod in a1 a2 a3; do pod_plug node-a "$pod"; done
    check "nothing is wrong yet" all_well
    full
    full_at_the_start
    read_only
    damaged
    unreadable
    links
    report_end
}

# A tmpfs that the daemon and `on_disk` see, and nobody else.
disk_up() {
    # shellcheck disable=SC2016
    lab_spawn disk node-a unshare --mount sh -c \
        'mount -t tmpfs -o size=512k,mode=0700 vswitch-lab "$1" && exec sleep infinity' sh "$state"
    wait_until 5 is_mounted
    VSWITCHD_UNDER=(nsenter "--mount=/proc/$(lab_pid disk)/ns/mnt" --)
}

is_mounted() { on_disk findmnt --noheadings --types tmpfs "$state"; }

on_disk() { nsenter "--mount=/proc/$(lab_pid disk)/ns/mnt" -- "$@"; }

# Until no further page is free.
fill() { on_disk dd if=/dev/zero of="$state/filler" bs=4k 2>/dev/null || true; }

make_room() { on_disk rm "$state/filler"; }

full() {
    heading "Full"
    fill
    check "when the journal's last page is full an ADD is refused" until_refused a4
    refused_and_named 'No space left on device.*make room there' a4
    check "DEL of a pod succeeds" pod_unplug node-a a1
    check "pods that are there go on" pings a2 "$(gateway4 node-a)"
    check "vswitchd is killed" lab_signal vswitchd-node-a KILL
    check "and starts from what is there" node_start node-a
    check "the pod that was deleted does not come back" has_leases 2
    make_room
    well_again a1
}

# The reserve is given up, and what is left is not enough to write all anew.
full_at_the_start() {
    heading "Full when it starts"
    lab_stop vswitchd-node-a
    fill
    check "vswitchd starts" node_start node-a
    check "with all that it had" has_leases 3
    refused_and_named 'No space left on device' a4
    check "DEL of a pod succeeds" pod_unplug node-a a1
    make_room
    well_again a1
}

read_only() {
    heading "Read-only"
    lab_stop vswitchd-node-a
    on_disk mount -o remount,ro "$state"
    check "vswitchd starts" node_start node-a
    check "with all that it had" has_leases 3
    refused_and_named 'Read-only file system.*make it writable' a4
    check "DEL of a pod succeeds" pod_unplug node-a a1
    check "and is remembered" has_leases 2
    on_disk mount -o remount,rw "$state"
    check "all is well by itself when it can be written" wait_until 10 all_well
    check "vswitchd is killed" lab_signal vswitchd-node-a KILL
    check "and starts" node_start node-a
    check "the pod that was deleted then does not come back" has_leases 2
    well_again a1
}

damaged() {
    heading "Damaged"
    local address
    address=$(address a2 4)
    lab_stop vswitchd-node-a
    # shellcheck disable=SC2016
    on_disk sh -c 'sed -i "/$2/s/lease/leasd/" "$1/journal"' sh "$state" "$(ns a2)"
    check "without a pod's lines vswitchd starts" node_start node-a
    check "without that pod" has_leases 2
    refused_and_named 'pods may be missing from the journal' a4
    check "its interface is found" node_adjust node-a
    check "the pod has its address again" holds_address "$address"
    check "all have their lease" has_leases 3
    check "it reaches its gateway" wait_until 5 pings a2 "$(gateway4 node-a)"
    check "an ADD succeeds" pod_plug node-a a4
    check "with an address of its own" [ "$(address a4 4)" != "$address" ]
    check "DEL of the pod that was lost succeeds" pod_unplug node-a a2
    check "its interface is gone" no_namespace a2
    pod_unplug node-a a4
    check "another takes its place" pod_plug node-a a2
    left_of_journal 0 "an empty journal"
    left_of_journal 2 "a journal cut where its second line ends"
}

# left_of_journal LINES WHAT: so many lines of the journal are left.
left_of_journal() {
    local before
    before=$(pod_addresses)
    lab_stop vswitchd-node-a
    # shellcheck disable=SC2016
    on_disk sh -c 'head -n "$2" "$1/journal" >"$1/cut" && cat "$1/cut" >"$1/journal" && rm "$1/cut"' sh "$state" "$1"
    check "with $2 vswitchd starts" node_start node-a
    check "without a pod" has_leases 0
    check "their interfaces are found" node_adjust node-a
    check "each pod has its addresses again" test "$(pod_addresses)" = "$before"
    check "they reach their gateway" wait_until 5 pings a3 "$(gateway4 node-a)"
    check "STATUS is well" wait_until 5 all_well
    check "vswitchd is killed" lab_signal vswitchd-node-a KILL
    check "and starts" node_start node-a
    check "with every lease" has_leases 3
}

pod_addresses() { ctl node-a show ports --json | jq -c '[.[] | select(.kind == "pod") | .addresses] | sort'; }

# holds_address ADDRESS: a pod that is forwarded for.
holds_address() {
    ctl node-a show ports --json | jq -e --arg address "$1" 'any(.[]; .up and (.addresses | index($address)))'
}

no_namespace() { [[ ! -e /run/netns/$(ns "$1") ]]; }

unreadable() {
    heading "Unreadable"
    lab_stop vswitchd-node-a
    on_disk mv "$state/journal" "$state/kept"
    on_disk mkdir "$state/journal"
    check "vswitchd starts" node_start node-a
    refused_and_named 'is a directory.*move it away' a4
    check "DEL of a pod that it does not know succeeds" pod_unplug node-a a1
    lab_stop vswitchd-node-a
    on_disk rmdir "$state/journal"
    on_disk mv "$state/kept" "$state/journal"
    check "with the journal back it starts" node_start node-a
    check "with all that is in it" has_leases 3
}

links() {
    heading "Links"
    lab_stop vswitchd-node-a
    # shellcheck disable=SC2016
    on_disk sh -c 'echo "of somebody else" >"$1/other" && ln -s other "$1/journal.new"' sh "$state"
    check "with a link in the place of journal.new vswitchd starts" node_start node-a
    check "and names it" wait_until 5 names 'journal.new is a symbolic link'
    check "the file that it leads to is as it was" \
        test "$(on_disk cat "$state/other")" = "of somebody else"
    on_disk rm "$state/journal.new"
    lab_stop vswitchd-node-a
    on_disk mv "$state/journal" "$state/elsewhere"
    on_disk ln -s elsewhere "$state/journal"
    check "with a link in the place of the journal it starts" node_start node-a
    refused_and_named 'journal is a symbolic link' a4
    check "what it leads to is not read" has_leases 0
}

# until_refused POD: each ADD and DEL before that succeeds.
until_refused() {
    local pod=$1
    lab_add_ns "$pod"
    for _ in {1..40}; do
        if ! cni node-a ADD "$pod"; then
            cni node-a DEL "$pod" && lab_delete_ns "$pod"
            return
        fi
        cni node-a DEL "$pod" || return 1
    done
    return 1
}

# refused_and_named PATTERN POD: an ADD of the pod is refused so, and STATUS and `status` have the reason.
refused_and_named() {
    local pattern=$1 pod=$2
    lab_add_ns "$pod"
    check "an ADD is refused with the reason" fails_with ADD "$pod" 11 "$pattern"
    check "the DEL after it succeeds" cni node-a DEL "$pod"
    check "STATUS fails with the reason" wait_until 5 fails_with STATUS "$pod" 50 "$pattern"
    check "status names it" wait_until 5 names "$pattern"
    lab_delete_ns "$pod"
}

# fails_with COMMAND POD CODE PATTERN
fails_with() {
    local said
    said=$(cni node-a "$1" "$2" 2>&1) && { echo "$1 succeeds" && return 1; }
    jq -e --argjson code "$3" --arg pattern "$4" \
        '.code == $code and ((.msg + " " + .details) | test($pattern))' <<<"$said" >/dev/null ||
        { echo "$said" && return 1; }
}

# names PATTERN
names() { ctl node-a status --json | jq -e --arg pattern "$1" 'any(.warnings[], .problems[]?.reason; test($pattern))'; }

names_nothing() { ! names 'journal'; }

all_well() {
    cni node-a STATUS nobody
}

# has_leases COUNT
has_leases() {
    local count
    count=$(ctl node-a show ports --json | jq '[.[] | select(.kind == "pod")] | length')
    ((count == $1)) || { echo "$count leases instead of $1" && return 1; }
}

# well_again POD: without anybody's doing; and what is added then is there after a crash.
well_again() {
    check "all is well by itself" wait_until 10 all_well
    check "and nothing is left to attend to" wait_until 5 names_nothing
    check "an ADD succeeds" pod_plug node-a "$1"
    check "vswitchd is killed" lab_signal vswitchd-node-a KILL
    check "and starts" node_start node-a
    check "with every lease" has_leases 3
}

main "$@"

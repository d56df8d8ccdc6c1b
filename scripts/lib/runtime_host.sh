#!/bin/bash
# The first process of a machine that runs containers: in mount and pid namespaces of its own, and in the
# network namespace of a node of the lab. The directories that runtimes and CNI keep to themselves are
# empty here, and end with these namespaces. Only its cgroup is made outside, whose name it writes down.
#
# Usage: runtime_host.sh LAB_DIRECTORY READY_FILE
set -euo pipefail
lab=$1 ready=$2

main() {
    if [[ -z ${OWN_CGROUP:-} ]]; then
        own_cgroup
        OWN_CGROUP=yes exec unshare --cgroup "$0" "$@"
    fi
    own_directories
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A cgroup that gives its controllers to others has no process itself.
    mkdir /sys/fs/cgroup/init
    printf '0\n' >/sys/fs/cgroup/init/cgroup.procs
    trap 'exit 0' TERM
    : >"$ready"
    while :; do
        # It reaps, as a first process does, while it waits.
        sleep 3600 &
        wait "$!" || true
    done
}

own_cgroup() {
    local path
    path=$(findmnt -n -f -o TARGET -t cgroup2)/$(basename "$lab")-$RANDOM
    printf '%s\n' "$path" >>"$lab/cgroups"
    mkdir "$path"
    printf '0\n' >"$path/cgroup.procs"
}

own_directories() {
    local directory kept
    exec {kept}<"$lab"
    for directory in /run /var/lib /dev/shm; do
        mount -t tmpfs tmpfs "$directory"
    done
    # It may have been below one of them. Its name would be looked up anew.
    if [[ ! -d $lab ]]; then
        mkdir -p "$lab"
        mount --no-canonicalize --bind "/proc/self/fd/$kept" "$lab"
    fi
    exec {kept}<&-
    mkdir /run/lock
}

main "$@"

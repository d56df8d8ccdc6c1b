#!/bin/bash
# The outside of a node with systemd: in mount and pid namespaces of its own, and in the network
# namespace of the node, it boots that machine, and boots it again when it reboots. All that it
# makes is within these namespaces, and ends with them, but for the cgroups, whose names it writes down.
#
# Usage: systemd_boot.sh TREE REPOSITORY BINARIES JOURNAL CGROUPS_FILE
set -euo pipefail
tree=$1 repository=$2 binaries=$3 journal=$4 cgroups=$5
# nspawn's word for a machine that wants to be booted again.
readonly REBOOT=133
# Where everything is mounted; every machine has it.
readonly AT=/mnt

main() {
    own_cgroups
    mount -t tmpfs tmpfs "$AT"
    mkdir "$AT"/{upper,work,root,source,bin,journal,dev}
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$AT/upper,workdir=$AT/work" "$AT/root"
    mount --bind "$repository" "$AT/source"
    mount --bind "$binaries" "$AT/bin"
    mount --bind "$journal" "$AT/journal"
    # As udev makes it. The machine's own is not touched.
    mknod -m 0666 "$AT/dev/tun" c 10 200
    # nspawn leaves locks and directories in /run.
    mount -t tmpfs tmpfs /run
    trap 'stop' TERM INT HUP
    local code=$REBOOT
    while ((code == REBOOT)); do
        code=0
        boot || code=$?
    done
    return "$code"
}

nspawn=

boot() {
    # pids of the machine's network are the node's; /proc/sys/net is its own to write.
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --quiet --boot --directory "$AT/root" \
        --machine node --network-namespace-path=/proc/self/ns/net --register=no --keep-unit \
        --capability=all --system-call-filter=bpf --settings=no --link-journal=no \
        --resolv-conf=off --timezone=off --console=pipe \
        --bind="$AT/dev/tun:/dev/net/tun" --bind-ro="$AT/source:/source" --bind-ro="$AT/bin:/built" \
        --bind="$AT/journal:/var/log/journal" &
    nspawn=$!
    local code=0
    wait "$nspawn" || code=$?
    # A signal ends the waiting, not the machine.
    while kill -0 "$nspawn" 2>/dev/null; do
        code=0
        wait "$nspawn" || code=$?
    done
    return "$code"
}

stop() { [[ -z $nspawn ]] || kill -TERM "$nspawn" 2>/dev/null || true; }

# Below the cgroups in which we are, one of our own: nspawn makes some in its own, by the same names for
# every machine. The same path in both hierarchies, because nspawn copies it from one to the other.
own_cgroups() {
    local name=vswitch-node-$$-$RANDOM mounted path
    for mounted in "$(cgroup_mount cgroup2 '^0::')" "$(cgroup_mount cgroup '^[0-9]*:name=systemd:')"; do
        [[ -n $mounted ]] || continue
        path=$mounted/$name
        printf '%s\n' "$path" >>"$cgroups"
        mkdir "$path"
        # By the writer's own number, whatever it is called in which pid namespace.
        printf '0\n' >"$path/cgroup.procs"
    done
}

# cgroup_mount TYPE PATTERN: the directory of our cgroup in the hierarchy of that line in our list.
cgroup_mount() {
    local where own
    own=$(sed -n "s/$2//p" /proc/self/cgroup)
    [[ -n $own ]] || return 0
    if [[ $1 == cgroup2 ]]; then
        where=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
    else
        where=$(findmnt -n -t cgroup -O name=systemd -o TARGET | head -n 1)
    fi
    [[ -z $where ]] || printf '%s' "${where}${own%/}"
}

main

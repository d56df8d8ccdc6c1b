# shellcheck shell=bash
# A lab: network namespaces, the processes in them, and a directory that remembers both, so that
# `lab_down` removes everything whoever calls it and however far `up` came. Everything is written
# down before it is made. Several labs can stand at once, each with its own id.
#
# Leaves behind, while it stands: namespaces vsw-ID-NAME, cgroups if a process of it makes some, and
# LAB_DIR with namespaces, cgroups, pids/, logs/ and a directory for each node. Sourced after report.sh.

LAB_PARENT=${XDG_RUNTIME_DIR:-/tmp}
LAB_ID=
LAB_DIR=
# What nice adds to the sessions of processes that are spawned; nothing if it is empty.
LAB_NICE=

# lab_create: a new lab with an id that no other has.
lab_create() {
    local try
    for try in "$$" "$$-2" "$$-3" "$$-4"; do
        if mkdir -m 0700 "$LAB_PARENT/vswitch-lab-$try" 2>/dev/null; then
            LAB_ID=$try
            LAB_DIR=$LAB_PARENT/vswitch-lab-$try
            mkdir "$LAB_DIR/pids" "$LAB_DIR/logs" "$LAB_DIR/addresses"
            : >"$LAB_DIR/namespaces"
            return 0
        fi
    done
    die "Cannot make a directory vswitch-lab-$$ in $LAB_PARENT"
}

# lab_open ID: one that stands.
lab_open() {
    LAB_ID=$1
    LAB_DIR=$LAB_PARENT/vswitch-lab-$1
    [[ -f $LAB_DIR/namespaces ]] || die "No lab $1 stands: there is no $LAB_DIR"
}

# Ids of the labs that stand.
lab_ids() {
    local dir
    for dir in "$LAB_PARENT"/vswitch-lab-*/; do
        [[ -f $dir/namespaces ]] && basename "$dir" | sed 's/^vswitch-lab-//'
    done
    return 0
}

# ns NAME: the namespace's full name.
ns() { printf 'vsw-%s-%s' "$LAB_ID" "$1"; }

# in_ns NAME COMMAND…: nsenter rather than `ip netns exec`, which would hide the cgroups.
in_ns() {
    local name=$1
    shift
    nsenter --net="/run/netns/vsw-$LAB_ID-$name" -- "$@"
}

# in_ip NAME ARGUMENTS…: `ip` in that namespace.
in_ip() {
    local name=$1
    shift
    ip -n "vsw-$LAB_ID-$name" "$@"
}

# lab_add_ns NAME
lab_add_ns() {
    [[ ! -e /run/netns/$(ns "$1") ]] || die "Namespace $(ns "$1") exists already and is not ours"
    printf '%s\n' "$1" >>"$LAB_DIR/namespaces"
    ip netns add "$(ns "$1")"
    in_ip "$1" link set lo up
    # No second of waiting for duplicate addresses that cannot be.
    in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

# lab_delete_ns NAME
lab_delete_ns() {
    local pid full
    full=$(ns "$1")
    [[ -e /run/netns/$full ]] || return 0
    # Whatever still runs in a namespace that we made was started by us.
    for pid in $(ip netns pids "$full" 2>/dev/null); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    ip netns del "$full" || return 0
    sed -i "/^$1\$/d" "$LAB_DIR/namespaces"
}

# Start time in clock ticks: together with the pid it names a process for ever.
process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Has its session's nice before it becomes the command.
# shellcheck disable=SC2016
readonly LAB_HASTEN='[ ! -w /proc/self/autogroup ] || echo "$0" >/proc/self/autogroup; exec "$@"'

# lab_hasten PROCESS NICE: its session; where sessions are scheduled as one, a process's own nice counts in it
# alone.
lab_hasten() { [[ ! -w /proc/$1/autogroup ]] || printf '%d' "$2" >"/proc/$1/autogroup"; }

# lab_nice NICE: of this session, and of those of the processes that are spawned from here on.
lab_nice() {
    LAB_NICE=$1
    lab_hasten self "$1"
}

# lab_spawn PROCESS NAMESPACE COMMAND…: in the background; its output goes to logs/PROCESS.log.
lab_spawn() {
    local process=$1 name=$2
    shift 2
    # nsenter replaces itself by the command, so $! is the command's pid. setsid keeps a Ctrl-C at
    # the terminal from it: the lab ends its processes itself, in order.
    setsid ${LAB_NICE:+sh -c "$LAB_HASTEN" "$LAB_NICE"} nsenter --net="/run/netns/vsw-$LAB_ID-$name" -- "$@" \
        </dev/null >>"$LAB_DIR/logs/$process.log" 2>&1 &
    lab_remember_pid "$process" "$!"
    disown "$!"
}

# lab_remember_pid PROCESS PID: which the lab ends.
lab_remember_pid() { printf '%s %s\n' "$2" "$(process_start "$2")" >"$LAB_DIR/pids/$1"; }

# lab_pid PROCESS: its pid if it still runs.
lab_pid() {
    local pid start
    read -r pid start 2>/dev/null <"$LAB_DIR/pids/$1" || return 1
    [[ $(process_start "$pid") == "$start" && -n $start ]] || return 1
    ! process_ended "$pid" || return 1
    printf '%s' "$pid"
}

# Its first thread is a zombie while others are still closing what it had: its locks, its NIC queues.
process_ended() {
    local threads=("/proc/$1/task/"*)
    [[ $(process_state "$1") == Z ]] && ((${#threads[@]} <= 1))
}

process_state() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1; }

# wait_until SECONDS COMMAND…: tries ten times a second.
wait_until() {
    local tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        ((tries > 0)) || return 1
        sleep 0.1
    done
}

# lab_gone PROCESS
lab_gone() { ! lab_pid "$1" >/dev/null; }

# lab_signal PROCESS SIGNAL: sends it and waits up to five seconds for the end.
lab_signal() {
    local pid
    pid=$(lab_pid "$1") || return 0
    kill "-$2" "$pid" 2>/dev/null || return 0
    wait_until 5 lab_gone "$1"
}

# lab_stop PROCESS: politely, then not.
lab_stop() {
    lab_signal "$1" TERM || lab_signal "$1" KILL || true
    rm -f "$LAB_DIR/pids/$1"
}

# lab_down: everything goes; daemons first, that they can clean up after themselves.
lab_down() {
    [[ -n $LAB_DIR && -d $LAB_DIR ]] || return 0
    local file name names=()
    for file in "$LAB_DIR"/pids/*; do
        [[ -f $file ]] && lab_stop "$(basename "$file")"
    done
    mapfile -t names <"$LAB_DIR/namespaces"
    for name in "${names[@]}"; do lab_delete_ns "$name"; done
    lab_delete_cgroups
    rm -rf "$LAB_DIR"
    LAB_DIR=
}

# With all that is below them: a cgroup is removed once no process is in it.
lab_delete_cgroups() {
    local path
    [[ -f $LAB_DIR/cgroups ]] || return 0
    while read -r path; do
        [[ -d $path ]] || continue
        wait_until 5 find "$path" -depth -type d -exec rmdir {} + || say "The cgroup $path stays" >&2
    done <"$LAB_DIR/cgroups"
}

# lab_trap: from here on the script's end, failure or Ctrl-C takes the lab down.
lab_trap() {
    trap 'lab_on_exit' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # Whoever read the output is gone.
    trap 'exit 141' PIPE
}

lab_on_exit() {
    local code=$?
    trap '' INT TERM HUP PIPE
    local job
    for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
    # A failed lab is worth looking into: its logs outlive it.
    if ((code != 0 && code < 128)) && [[ -n $LAB_DIR ]]; then lab_keep_logs; fi
    lab_down
    exit "$code"
}

# lab_keep_logs: copies the logs to where they outlive the lab, and says where.
lab_keep_logs() {
    local kept=${VSWITCH_LOGS:-$LAB_PARENT/vswitch-lab-logs-$LAB_ID}
    mkdir -p "$kept"
    cp -r "$LAB_DIR"/logs/. "$kept"/
    say "The logs of lab $LAB_ID are in $kept"
}

# shellcheck shell=bash
# B17, B20: what a node with a hundred pods costs that do nothing: CPU time and memory, beside Open vSwitch with
# as many TAPs. B18: how long an ADD takes, beside Debian's bridge and host-local. Sourced after ovs.sh and
# add_time.sh.

readonly MANY_PODS=100

bench_many_pods() {
    bench_ours
    if wants B18; then
        # The reference has one family.
        ipv4_only node-a
        bench_restart node-a
        bench_measure add add_time both
    fi
    wants B17 B20 || return 0
    progress "$MANY_PODS pods"
    pods_plug node-a "$MANY_PODS"
    ovs_of_many
    ! wants B17 || bench_measure idle idle_cpu vswitchd ovs
    ! wants B20 || bench_measure memory resident vswitchd ovs
}

# Its TAPs stay in its namespace: what pods are made of besides costs neither of them anything.
ovs_of_many() {
    local number ports=()
    lab_add_ns ovs
    ovs_start ovs
    for ((number = 1; number <= MANY_PODS; number++)); do
        ports+=(-- add-port br0 "tap$number" -- set interface "tap$number" type=tap)
    done
    ovs_ask ovs add-br br0 -- set bridge br0 datapath_type=netdev "${ports[@]}"
}

# switch_of SIDE: its process.
switch_of() {
    case $1 in
        vswitchd) lab_pid vswitchd-node-a ;;
        ovs) lab_pid ovs-switch ;;
    esac
}

# idle_cpu SIDE: hundredths of a CPU, over some seconds in which nothing is asked of it.
idle_cpu() {
    local pid before
    pid=$(switch_of "$1")
    before=$(run_ns "$pid")
    sleep "$((bench_seconds * 3))"
    jq -n "($(run_ns "$pid") - $before) / 1e7 / $((bench_seconds * 3))"
}

# run_ns PID: nanoseconds that its threads have run.
run_ns() { cat "/proc/$1/task/"*/schedstat | awk '{ ran += $1 } END { printf "%d", ran }'; }

# resident SIDE: bytes.
resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$(switch_of "$1")/status"; }

# add_time: milliseconds, of both plugins by turns.
add_time() {
    add_times node-a 12 1 16 2>/dev/null | jq -ce '{sides: {vswitchd: .ours, reference: .theirs}}'
}

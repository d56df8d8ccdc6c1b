#!/bin/bash
# What a pod is told: full-size packets pass, and one that is too big, too old or for nobody is
# answered by the right ICMP from the gateway, never by silence.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local mode
    setup_binaries
    lab_trap
    for mode in vxlan ipip direct; do
        lab_create
        two_nodes_up "$mode"
        pod_plug node-a a1
        pod_plug node-b b1
        sizes "$mode" "${POD_MTU[$mode]}"
        [[ $mode != vxlan ]] || answers
        lab_down
    done
    report_end
}

# sizes MODE MTU
sizes() {
    local mode=$1 mtu=$2
    check "$mode: the pod's MTU is $mtu" has_mtu a1 "$mtu"
    # Less 20 or 40 bytes of IP and 8 of ICMP.
    check "$mode: IPv4 of $mtu bytes passes" pings_sized a1 b1 4 $((mtu - 28))
    check "$mode: IPv6 of $mtu bytes passes" pings_sized a1 b1 6 $((mtu - 48))
    # A pod that believes in more than there is.
    in_ip a1 link set eth0 mtu 2000
    check "$mode: IPv4 of one byte more is answered with the MTU" \
        is_told a1 "mtu ?= ?$mtu" -M "do" -s $((mtu - 27)) "$(address b1 4)"
    check "$mode: IPv6 of one byte more is answered with the MTU" \
        is_told a1 "mtu ?= ?$mtu" -M "do" -s $((mtu - 47)) "$(address b1 6)"
}

has_mtu() { [[ $(in_ip "$1" -json link show dev eth0 | jq '.[0].mtu') == "$2" ]]; }

# pings_sized FROM TO FAMILY BYTES
pings_sized() {
    in_ns "$1" ping -q -n -M "do" -s "$4" -c 2 -i 0.2 -w 2 "$(address "$2" "$3")"
}

answers() {
    local gateway4 gateway6
    gateway4=$(gateway4 node-a)
    gateway6=$(gateway6 node-a)
    check "TTL 1 is exceeded at the gateway" \
        is_told a1 "$gateway4 .*(exceeded)" -t 1 "$(address b1 4)"
    check "hop limit 1 is exceeded at the gateway" \
        is_told a1 "$gateway6 .*(exceeded)" -t 1 "$(address b1 6)"
    check "an IPv4 address that no pod has is unreachable" \
        is_told a1 "$gateway4 .*[Uu]nreachable" 198.18.1.200
    check "an IPv6 address that no pod has is unreachable" \
        is_told a1 "$gateway6 .*[Uu]nreachable" fd00:18:1::200
    check "the gateway answers ping over IPv4" pings a1 "$gateway4"
    check "the gateway answers ping over IPv6" pings a1 "$gateway6"
}

# is_told NAME PATTERN PING…: what ping says matches.
is_told() {
    local name=$1 pattern=$2 said
    shift 2
    said=$(in_ns "$name" ping -n -c 2 -i 0.3 -w 2 "$@" 2>&1) || true
    grep -Eq "$pattern" <<<"$said" || { echo "$said" && return 1; }
}

main "$@"

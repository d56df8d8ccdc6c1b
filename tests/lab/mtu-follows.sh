#!/bin/bash
# The uplink's MTU changes under live pods: the host port follows at once, pods when they are adjusted,
# or at once where somebody watches, and until then a packet that is too long is answered with the
# length that passes. What cannot work is refused with the numbers.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up ipip
    pod_plug node-a a1
    pod_plug node-b b1
    check "a pod of 1480 bytes" link_has_mtu a1 eth0 1480
    uplink_shrinks
    uplink_grows
    watched
    too_small_for_ipv6
    refusals
    accounting
    report_end
}

accounting() {
    local node
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
}

uplink_shrinks() {
    in_ip node-a link set eth0 mtu 1400
    check "the uplink shrinks, and the host port with it" wait_until 5 link_has_mtu node-a vsw0 1380
    check "status names the pod that has not" says "1 pod(s) have another MTU than 1380"
    check "whoever adjusts is called" grep -qx 1380 "$(node_socket node-a).adjust"
    check "a packet that is too long is answered" told a1 "$(address b1 4)" 1452 1380
    check "of IPv6 too" told a1 "$(address b1 6)" 1432 1380
    check "one that is not passes" in_ns a1 ping -q -n -M "do" -s 1352 -c 1 -W 2 "$(address b1 4)"
    check "the pod is adjusted" node_adjust node-a
    check "to 1380 bytes" link_has_mtu a1 eth0 1380
    check "and status is silent" silent
    check "CNI CHECK finds nothing wrong" cni node-a CHECK a1 "$(cat "$(node_dir node-a)/pods/a1.json")"
}

uplink_grows() {
    in_ip node-a link set eth0 mtu 1500
    check "the uplink grows, and the host port with it" wait_until 5 link_has_mtu node-a vsw0 1480
    check "the pod is adjusted" node_adjust node-a
    check "to 1480 bytes" link_has_mtu a1 eth0 1480
    # What was learned of the smaller one is forgotten with time; not to wait for that.
    in_ip a1 route flush cache
    in_ip a1 -6 route flush cache
    check "a packet of full size passes" \
        in_ns a1 ping -q -n -M "do" -s 1452 -c 1 -W 2 "$(address b1 4)"
}

# As a container of the DaemonSet: with its two capabilities, and whenever the daemon asks.
watched() {
    local file
    file=$(node_socket node-a).adjust
    rm "$file"
    lab_spawn adjuster node-a setpriv --bounding-set=-all,+sys_admin,+net_admin --no-new-privs \
        "$bin/vswitch-cni" --adjust --watch "$(node_socket node-a)"
    check "an adjuster watches" wait_until 5 grep -Fq "watching $file" "$LAB_DIR/logs/adjuster.log"
    in_ip node-a link set eth0 mtu 1440
    check "the uplink shrinks, and a live pod with it" wait_until 10 link_has_mtu a1 eth0 1420
    check "status is silent" wait_until 5 silent
    in_ip node-a link set eth0 mtu 1500
    check "the uplink grows, and a live pod with it" wait_until 10 link_has_mtu a1 eth0 1480
    check "the adjuster ends when it is told to" lab_signal adjuster TERM
}

too_small_for_ipv6() {
    in_ip node-a link set eth0 mtu 1299
    check "less than IPv6 needs is named in status" \
        wait_until 5 says "the 1279 left are less than the 1280 that pods need"
    # Below that the kernel takes IPv6 from an interface, with its addresses and routes.
    check "the host port gets no less" link_has_mtu node-a vsw0 1280
    in_ip node-a link set eth0 mtu 1500
    check "and not named any more" wait_until 5 silent_of "that pods need"
    check "the host port has its MTU again" wait_until 5 link_has_mtu node-a vsw0 1480
    check "and IPv6" pings node-a "$(address b1 6)"
}

refusals() {
    local vxlan=(peer add node-z 203.0.113.99 --prefix 198.18.99.0/24 --encapsulation vxlan)
    check "an MTU that IPIP does not leave is not reloaded" \
        refuses_reload 'encapsulation = "ipip"' 'pod_mtu = 1481' \
        'eth0 carries 1500 bytes, of which encapsulation takes 20: 1480 is the most, not 1481'
    check "nothing has changed" link_has_mtu node-a vsw0 1480
    check "one that it does leave is" node_overlay node-a 'encapsulation = "ipip"' 'pod_mtu = 1480'
    check "a peer by VXLAN is refused then" \
        refused '1450 is the most, not 1480' ctl node-a "${vxlan[@]}"
    check "without encapsulation it is taken" ctl node-a "${vxlan[@]}" --encapsulate never
    check "and replaced by one with, if that fits" ctl node-a peer add node-z 203.0.113.99 \
        --prefix 198.18.99.0/24 --encapsulate cross-subnet
    check "as show peers tells" shows_peer node-z cross-subnet
}

# told NAME ADDRESS PAYLOAD MTU: a ping that must not be cut fails with this MTU.
told() {
    local output
    output=$(in_ns "$1" ping -n -M "do" -s "$3" -c 1 -W 2 "$2" 2>&1) && return 1
    echo "$output"
    grep -Eq "mtu ?= ?$4" <<<"$output"
}

says() { ctl node-a status --json | jq -e --arg words "$1" 'any(.warnings[]; contains($words))'; }
silent_of() { ! says "$1"; }
silent() { silent_of MTU; }

# refuses_reload LINE LINE WORDS
refuses_reload() {
    local log=$LAB_DIR/logs/vswitchd-node-a.log
    node_overlay node-a "$1" "$2" && return 1
    grep -Fq "$3" "$log" || { tail -n 2 "$log" && return 1; }
}

# refused WORDS COMMAND…: it fails, and says so.
refused() {
    local words=$1 output
    shift
    output=$("$@" 2>&1) && return 1
    echo "$output"
    grep -Fq "$words" <<<"$output"
}

shows_peer() {
    ctl node-a show peers --json |
        jq -e --arg name "$1" --arg policy "$2" 'any(.[]; .name == $name and .policy == $policy)'
}

main "$@"

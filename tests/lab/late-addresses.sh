#!/bin/bash
# The underlay's addresses come after the daemons: node-a starts without any on its NIC and gets its
# IPv6 address by a router advertisement; then both nodes get IPv4 addresses by hand, beside those. What
# the configuration leaves open is followed, and status says what is still to come; an address that it
# names must be there at the start.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PATIENCE_SECONDS=5

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay6_up node-a node-b
    bare
    node6_up node-b vxlan node-a
    node6_up node-a vxlan node-b
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    nothing_yet
    advertised
    the_other_family
    a_reload_waits_for_nothing
    named_and_missing
    report_end
}

# node-a's NIC has no address, nor a way anywhere. What is advertised will end in ::11.
bare() {
    in_ip node-a address flush dev eth0 scope global
    in_ip node-a -6 route flush default
    in_ns node-a sysctl -qw net.ipv6.conf.eth0.accept_ra=2
    in_ip node-a token set ::11 dev eth0
}

nothing_yet() {
    check "status says that there is no address yet" says node-a "eth0 has no IPv6 address yet"
    check "and names none" no_address node-a
    check "a1 reaches a pod of its own node" pings a1 "$(address a2 4)"
    check "the peer is known" peer_state node-a "the uplink has no address yet to reach it from"
}

advertised() {
    in_ns router /usr/bin/python3 "$root/tests/lab/advertise_prefix.py" lan-a "${LAN6[lan-a]}:"
    check "an advertised address is followed" \
        wait_until "$PATIENCE_SECONDS" has_address node-a address "${HOST6[node-a]}"
    check "and b1 is reached by it" recovers a1 b1
    check "in both directions" recovers b1 a1
    check "status misses nothing any more" wait_until "$PATIENCE_SECONDS" says_nothing node-a
}

the_other_family() {
    local node
    for node in node-a node-b; do
        in_ip router address add "${LAN_GATEWAY[${HOST_LAN[$node]}]}/25" dev "${HOST_LAN[$node]}"
        in_ip "$node" address add "${HOST_ADDRESS[$node]}/25" dev eth0
        in_ip "$node" route add default via "${LAN_GATEWAY[${HOST_LAN[$node]}]}"
        check "$node takes its IPv4 address too" \
            wait_until "$PATIENCE_SECONDS" has_address "$node" address "${HOST_ADDRESS[$node]}"
        check "beside the IPv6 one" has_address "$node" address6 "${HOST6[$node]}"
    done
    check "b1 is still reached" pings a1 "$(address b1 4)"
    for node in node-a node-b; do
        sed -i -e "s|\"${HOST6[node-a]}\"|\"${HOST_ADDRESS[node-a]}\"|" \
            -e "s|\"${HOST6[node-b]}\"|\"${HOST_ADDRESS[node-b]}\"|" "$(node_dir "$node")/vswitch.toml"
        kill -HUP "$(lab_pid "vswitchd-$node")"
    done
    check "peers are moved to their IPv4 addresses" \
        wait_until "$PATIENCE_SECONDS" has_peer_at node-a "${HOST_ADDRESS[node-b]}"
    check "by which b1 is reached" recovers a1 b1
    check "in both directions" recovers b1 a1
    in_ip node-b address del "${HOST6[node-b]}/64" dev eth0
    check "without the IPv6 addresses too" recovers a1 b1
}

# What works is not given up for an address that is not there.
a_reload_waits_for_nothing() {
    local file
    file=$(node_dir node-b)/vswitch.toml
    lab_stop vswitchd-node-b
    node_start node-b
    pod_plug node-b b2
    check "without an IPv6 address node-b starts" has_address node-b address "${HOST_ADDRESS[node-b]}"
    check "and reaches a1 from another pod" recovers b2 a1
    sed -i "s|\"${HOST_ADDRESS[node-a]}\"|\"${HOST6[node-a]}\"|" "$file"
    kill -HUP "$(lab_pid vswitchd-node-b)"
    check "a reload that needs one is refused" \
        wait_until "$PATIENCE_SECONDS" grep -q 'not reloaded: uplink eth0 has no IPv6 address yet' \
        "$LAB_DIR/logs/vswitchd-node-b.log"
    check "and a1 is still reached" pings b2 "$(address a1 4)"
}

named_and_missing() {
    local file
    file=$(node_dir node-a)/missing.toml
    sed "s|^interface = .*|&\naddress6 = \"2001:db8:a::99\"|" "$(node_dir node-a)/vswitch.toml" >"$file"
    check "a configured address that is missing is refused" refused node-a "$file" \
        'uplink.address6: eth0 does not have 2001:db8:a::99'
}

# refused NODE FILE WORDS
refused() {
    local said
    ! said=$(in_ns "$1" "$bin/vswitchd" --check --config "$2" 2>&1) || { echo "valid" && return 1; }
    [[ $said == *"$3"* ]] || { echo "$said" && return 1; }
}

says() { ctl "$1" status --json | jq -e --arg words "$2" 'any(.warnings[]; contains($words))'; }

says_nothing() { ctl "$1" status --json | jq -e 'all(.warnings[]; contains("address") | not)'; }

no_address() { ctl "$1" status --json | jq -e '.uplink.address == null and .uplink.vtep_mac == null'; }

# has_address NODE KEY ADDRESS
has_address() {
    ctl "$1" status --json | jq -e --arg key "$2" --arg address "$3" '.uplink[$key] == $address'
}

peer_state() { ctl "$1" show peers --json | jq -e --arg state "$2" '.[0].state == $state'; }

has_peer_at() { ctl "$1" show peers --json | jq -e --arg address "$2" '.[0].address == $address'; }

recovers() { wait_until "$PATIENCE_SECONDS" in_ns "$1" ping -q -n -c 1 -W 1 "$(address "$2" 4)"; }

main "$@"

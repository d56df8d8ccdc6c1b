#!/bin/bash
# What cannot work is refused at start, with a message that names what to change; and a second
# vswitchd does not disturb the first.
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
    underlay_attach_node node-b
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    node_config node-a vxlan node-b >"$LAB_DIR/good.toml"
    configurations
    mtus
    second_daemon
    report_end
}

configurations() {
    refused "pod prefixes that overlap a peer's" '198\.18\.1\.' \
        's|"198.18.2.0/24", |"198.18.1.128/25", |'
    refused "a peer without an address" 'address' '/^address = "203/d'
    refused "an MTU that the underlay cannot carry" 'mtu' 's|^vni = .*|&\npod_mtu = 1500|'
    refused "an interface that does not exist" 'eth7' 's|"eth0"|"eth7"|'
    refused "an unknown key" 'encapsulatoin' 's|^encapsulation|encapsulatoin|'
    refused "an unknown encapsulation" 'vxlan.*ipip|ipip.*vxlan' 's|"vxlan"|"gre"|'
    refused "a VNI of more than 24 bits" 'vni' 's|^vni = .*|vni = 16777216|'
    refused "pod prefixes outside the cluster's" 'cluster' 's|"198.18.0.0/16"|"198.19.0.0/16"|'
}

# What the uplink cannot carry, or pods cannot do with: --check names the line.
mtus() {
    local mtu='^pod_mtu = ' takes='eth0 carries 1500 bytes, of which encapsulation takes'
    checked "pod_mtu = 1451 by VXLAN" "$mtu" "overlay.pod_mtu: $takes 50: 1450 is the most, not 1451" \
        's|^vni = .*|&\npod_mtu = 1451|'
    checked "pod_mtu = 1480 by IPIP, with a peer by VXLAN" "$mtu" \
        "overlay.pod_mtu: $takes 50: 1450 is the most, not 1480" \
        's|^encapsulation = .*|encapsulation = "ipip"|; s|^vni = .*|&\npod_mtu = 1480|
         s|^address = "203.*|&\nencapsulation = "vxlan"|'
    in_ip node-a address add 2001:db8:a::11/64 dev eth0
    checked "pod_mtu = 1450, with a peer over IPv6" "$mtu" \
        "overlay.pod_mtu: $takes 70: 1430 is the most, not 1450" \
        's|^vni = .*|&\npod_mtu = 1450|; s|^address = "203.*|address = "2001:db8:b::12"|'
    in_ip node-a address del 2001:db8:a::11/64 dev eth0
    checked "pod_mtu = 1279 with IPv6" "$mtu" 'overlay.pod_mtu: IPv6 needs 1280 bytes or more' \
        's|^vni = .*|&\npod_mtu = 1279|'
    checked "pod_mtu = 65536" "$mtu" 'overlay.pod_mtu: expected a whole number' \
        's|^vni = .*|&\npod_mtu = 65536|'
    in_ip node-a link set eth0 mtu 1329
    checked "a NIC that leaves 1279 bytes" '^interface = ' \
        'uplink.interface: eth0 carries 1329 bytes, of which encapsulation takes 50: the 1279 left' ''
    in_ip node-a link set eth0 mtu 1500
}

# checked WHAT LINE WORDS EDIT: --check refuses the good configuration with sed's EDIT, with these
# words about the line that matches LINE.
checked() {
    local file=$LAB_DIR/bad.toml said=$LAB_DIR/said code=0 line
    sed "$4" "$LAB_DIR/good.toml" >"$file"
    line=$(grep -n "$2" "$file" | head -n 1 | cut -d: -f1)
    in_ns node-a timeout 10 env NO_COLOR=1 "$bin/vswitchd" --check --config "$file" >"$said" 2>&1 || code=$?
    if ((code != 0 && code < 101)) && grep -Fq "$file:$line: $3" "$said"; then
        pass "--check refuses $1: $(grep -F "$file:$line: " "$said" | sed 's|.*/||' | head -n 1)"
    else
        fail "--check refuses $1" "exit code $code, and not '$file:$line: $3': $(cat "$said")"
    fi
}

# refused WHAT PATTERN EDIT: the good configuration with sed's EDIT; the message names the file and
# matches PATTERN, whatever the case.
refused() {
    local file=$LAB_DIR/bad.toml said=$LAB_DIR/said code=0
    sed "$3" "$LAB_DIR/good.toml" >"$file"
    if cmp -s "$file" "$LAB_DIR/good.toml"; then
        fail "$1 is refused" "the test's edit changed nothing"
        return
    fi
    in_ns node-a timeout 10 env NO_COLOR=1 "$bin/vswitchd" --config "$file" >"$said" 2>&1 || code=$?
    if ((code == 0 || code >= 124)); then
        fail "$1 is refused" "it ran (exit code $code): $(tail -n 2 "$said")"
    elif ! grep -Eiq "$2" "$said"; then
        fail "$1 is refused" "the message does not say what to change: $(cat "$said")"
    elif ((code == 101)) || finds 'panicked' "$said"; then
        fail "$1 is refused" "it panicked: $(cat "$said")"
    else
        pass "$1 is refused: $(tail -n 1 "$said")"
    fi
}

second_daemon() {
    local socket
    socket=$(node_socket node-a)
    node_up node-a vxlan node-b
    pod_plug node-a a1
    second "on the same socket" "$socket|already|running" ''
    # Its own socket, state, host port and prefixes: nothing but the NIC is the same.
    second "on the same NIC" 'eth0' \
        "s|^socket = .*|socket = \"$LAB_DIR/second.sock\"|; s|^state_dir = .*|state_dir = \"$LAB_DIR/second\"|
         s|198\.18\.|198.19.|g; s|fd00:18:|fd00:19:|g; s|^\[workers\]|[host]\ninterface = \"vsw1\"\nmasquerade = false\n&|"
    check "the first still answers" ctl node-a status
    check "and still forwards" pings node-a "$(address a1 4)"
}

# second WHAT PATTERN EDIT
second() {
    local said=$LAB_DIR/said code=0
    sed "$3" "$LAB_DIR/good.toml" >"$LAB_DIR/second.toml"
    in_ns node-a timeout 10 env NO_COLOR=1 "$bin/vswitchd" --config "$LAB_DIR/second.toml" \
        >"$said" 2>&1 || code=$?
    if ((code == 0 || code == 101 || code >= 124)); then
        fail "a second vswitchd $1 is refused" "exit code $code: $(tail -n 2 "$said")"
    elif ! grep -Eiq "$2" "$said"; then
        fail "a second vswitchd $1 is refused" "the message does not say why: $(cat "$said")"
    else
        pass "a second vswitchd $1 is refused: $(tail -n 1 "$said")"
    fi
}

main "$@"

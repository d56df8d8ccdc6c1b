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
    elif ((code == 101)) || grep -q 'panicked' "$said"; then
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

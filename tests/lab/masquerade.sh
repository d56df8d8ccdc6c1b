#!/bin/bash
# Pods and the world outside: who is masqueraded and who is not, as the configuration says and as it
# is changed; and everybody else's rules on the node, which stay as they are, to the byte. `outside`
# has no route to pods, so that an answer proves the masquerading, until it is given one.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

OUTSIDE=${HOST_ADDRESS[outside]}
NODE=${HOST_ADDRESS[node-a]}

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    rules_of_others
    others >"$LAB_DIR/others"
    node_up node-a vxlan node-b
    pod_plug node-a a1
    servers_up outside
    who_servers_up outside
    masqueraded
    firewall
    excepted
    flushed
    ends
    foreign
    without_nft
    report_end
}

# As kube-proxy, a firewall and somebody with our name in another family leave them.
rules_of_others() {
    in_ns node-a nft -f - <<NFT
table ip nat {
  chain KUBE-SERVICES {
    ip daddr 198.19.0.10 tcp dport 443 dnat to $OUTSIDE:$SERVER_PORT
  }
  chain KUBE-POSTROUTING {
    meta mark & 0x4000 != 0x4000 return
    meta mark set meta mark ^ 0x4000
    masquerade random
  }
  chain PREROUTING {
    type nat hook prerouting priority dstnat; policy accept;
    jump KUBE-SERVICES
  }
  chain POSTROUTING {
    type nat hook postrouting priority srcnat; policy accept;
    jump KUBE-POSTROUTING
  }
}
table ip vswitch {
  chain postrouting {
    type nat hook postrouting priority 200; policy accept;
  }
}
table inet filter {
  set blocked {
    type ipv4_addr
    elements = { 203.0.113.66 }
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state invalid drop
    ip daddr @blocked drop
  }
}
NFT
}

# Everybody's rules but ours.
others() {
    local table
    in_ns node-a nft list tables | grep -v '^table inet vswitch$' | while read -r table; do
        # A table's name is three words.
        # shellcheck disable=SC2086
        in_ns node-a nft list $table
    done
}

others_are_untouched() { diff "$LAB_DIR/others" <(others); }

# seen_as ADDRESS [POD]: `outside` sees the pod as that, over TCP and UDP; a1, unless another is named.
seen_as() {
    sees "${2:-a1}" "$OUTSIDE" "$1 $OUTSIDE" && sees_by_udp "${2:-a1}" "$OUTSIDE" "$1 $OUTSIDE"
}

masqueraded() {
    check "outside sees the node's address" seen_as "$NODE"
    check "others' rules are untouched" others_are_untouched
    check "status counts the connections" counts
    # It is the kernel that this goes by: kube-proxy's rules see it.
    check "a service's address leads outside" \
        in_ns a1 curl -sS --noproxy '*' --max-time 5 "http://198.19.0.10:443/who"
}

counts() { ctl node-a status --json | jq -e '.masquerade.connections >= 2'; }

firewall() {
    local drops="drops what nothing in its chain \`inet filter forward\` accepts"
    check "a firewall that accepts is none of status's concern" not_said "$drops"
    policy drop
    node_reload node-a
    check "one that drops is named by status" said "$drops"
    check "and does keep pods from the world" refused
    policy accept
    node_reload node-a
    check "and named no more once it accepts" not_said "$drops"
}

policy() { in_ns node-a nft "chain inet filter forward { policy $1; }"; }

refused() { ! fetch_by_udp a1 "$OUTSIDE"; }

said() { ctl node-a status --json | jq -r '.warnings[]' | grep -F "$1"; }

not_said() { ! said "$1"; }

# The way back to the pods is the underlay's own here.
excepted() {
    local pod
    pod=$(address a1 4)
    in_ip router route add "${POD_PREFIX4[node-a]}" via "$NODE"
    in_ip outside route add "${POD_PREFIX4[node-a]}" via "${LAN_GATEWAY[lan-out]}"
    check "a way back alone changes nothing" seen_as "$NODE"
    host_section 'non_masquerade_prefixes = ["203.0.113.0/24", "203.0.113.128/25", "2001:db8::/32"]'
    # Answers come past the kernel, to which what follows them is invalid.
    check "an exception: outside sees the pod's address, UDP" \
        sees_by_udp a1 "$OUTSIDE" "$pod $OUTSIDE"
    in_ns node-a nft flush chain inet filter forward
    check "and over TCP, where nothing drops what is invalid" sees a1 "$OUTSIDE" "$pod $OUTSIDE"
    check "status names the exceptions" names_exceptions
    host_section 'masquerade = false'
    check "no masquerading: outside sees the pod's address" seen_as "$pod"
    check "and our table is gone" no_table
    host_section 'masquerade = true'
    in_ip outside route del "${POD_PREFIX4[node-a]}"
    in_ip router route del "${POD_PREFIX4[node-a]}"
    check "and back: outside sees the node's address" seen_as "$NODE"
    # What the firewall lost above was the lab's doing.
    others >"$LAB_DIR/others"
}

names_exceptions() { ctl node-a status | grep '^masquerade .*not towards 203.0.113.0/24'; }

no_table() { ! in_ns node-a nft list tables | finds '^table inet vswitch$'; }

# host_section LINE: what [host] has, from a reload on.
host_section() {
    local file
    file=$(node_dir node-a)/vswitch.toml
    sed -i '/^\[host\]/,$d' "$file"
    printf '[host]\n%s\n' "$1" >>"$file"
    node_reload node-a
}

is_repaired() {
    ctl node-a status --json | jq -e 'any(.repairs[]; .part | contains("nftables table inet vswitch"))'
}

flushed() {
    in_ns node-a nft delete table inet vswitch
    check "a table that somebody removed is set again" wait_until 3 in_ns node-a nft list table inet vswitch
    check "and status tells so" is_repaired
    check "a reload succeeds" node_reload node-a
    check "and sets it again" seen_as "$NODE"
}

ends() {
    check "others' rules are untouched so far" others_are_untouched
    lab_signal vswitchd-node-a KILL
    check "a killed daemon: others' rules are untouched" others_are_untouched
    check "the next one starts" node_start node-a
    # No service manager kept a1's port, and nobody has opened it again.
    pod_plug node-a a2
    check "and masquerades" seen_as "$NODE" a2
    check "others' rules are untouched by it" others_are_untouched
    lab_signal vswitchd-node-a KILL
    host_port vsw9
    check "one with another host port takes the leftover over" node_start node-a
    pod_plug node-a a3
    check "and masquerades, too" seen_as "$NODE" a3
    host_port vsw0
    lab_signal vswitchd-node-a TERM
    check "a stopped daemon: others' rules are untouched" others_are_untouched
    node_start node-a
    check "it is drained" node_drain node-a
    check "others' rules are the only ones" only_others
}

# nft parts the tables of one listing by empty lines.
only_others() { diff -B "$LAB_DIR/others" <(in_ns node-a nft list ruleset); }

# host_port NAME: for the next start.
host_port() {
    local file
    file=$(node_dir node-a)/vswitch.toml
    sed -i '/^\[host\]/,$d' "$file"
    printf '[host]\ninterface = "%s"\n' "$1" >>"$file"
}

# A table with our name that is none of ours.
foreign() {
    in_ns node-a nft 'table inet vswitch { chain own { oifname != "vsw0" counter drop; }; }'
    others_and_this >"$LAB_DIR/foreign"
    check "a foreign table of our name is refused" refuses 'was not made by vswitchd'
    check "and untouched" unchanged
    in_ns node-a nft delete table inet vswitch
}

others_and_this() { in_ns node-a nft list ruleset; }

unchanged() { diff "$LAB_DIR/foreign" <(others_and_this); }

# refuses SENTENCE: vswitchd does not start, and says why.
refuses() {
    local said
    said=$(in_ns node-a timeout 10 env NO_COLOR=1 "${VSWITCHD_UNDER[@]}" "$bin/vswitchd" \
        --config "$(node_dir node-a)/vswitch.toml" 2>&1) && return 1
    grep -F "$1" <<<"$said" || { echo "$said" && return 1; }
}

without_nft() {
    VSWITCHD_UNDER=(PATH=/nonexistent)
    check "without the program nft it does not start" refuses "the program \`nft\` is missing"
    VSWITCHD_UNDER=()
    check "and leaves no host port" no_host_port
}

no_host_port() { ! in_ip node-a link show dev vsw0; }

main "$@"

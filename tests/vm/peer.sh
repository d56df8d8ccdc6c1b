#!/bin/bash
# A real kernel's IPIP (or VXLAN) at one end, ours at the other, both ways: the pod v1 behind node-v,
# which is a VM without anything of ours, and a pod on each of our two nodes. node-v is in node-a's
# subnet and behind the router for node-b, so that both kinds of next hop are met.
# `scripts/lab vm-peer` runs it; `scripts/test` does not, because it takes a minute.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/vm_image.sh
. "$root/scripts/lib/vm_image.sh"
# shellcheck source=scripts/lib/vm_node.sh
. "$root/scripts/lib/vm_node.sh"

declare -rA NODE_OF=([a1]=node-a [b1]=node-b [v1]=node-v)
# How long a VM that is kept stands at most.
readonly KEPT_S=14400

main() {
    local mode=ipip keep='' argument ours family lacks
    for argument in "$@"; do
        case $argument in
            --vxlan) mode=vxlan ;;
            --keep) keep=yes VM_LIFETIME_S=$KEPT_S ;;
            *) die "Usage: scripts/lab vm-peer [--vxlan] [--keep]" ;;
        esac
    done
    ((EUID == 0)) || die "The lab is made of network namespaces: run this as root"
    setup_packages build lab vm
    lacks=$(lab_lacks)$(vm_lacks)
    [[ -z $lacks ]] || die "This machine cannot hold the lab and its VM; it lacks $lacks"
    setup_binaries
    vm_image_ready
    lab_trap
    lab_create
    up "$mode"
    for ours in a1 b1; do
        for family in 4 6; do pair "$ours" "$family" "${POD_MTU[$mode]}"; done
    done
    nodes
    the_kernel_agrees "$mode"
    on_the_wire "$mode"
    heading "Every packet is accounted for"
    check_accounts node-a
    check_accounts node-b
    if [[ -n $keep ]]; then
        kept
    else
        step "Taking it down: the daemons, the VM, the namespaces"
        lab_down
    fi
    report_end
}

up() {
    step "Two nodes with a vswitchd on each; and node-v, a VM whose kernel speaks $1 by itself"
    WITH_VM_NODE=yes
    two_nodes_up "$1"
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1
    vm_node_ready || exit 1
}

# pair OURS FAMILY MTU: everything between that pod and v1, both ways.
pair() {
    local ours=$1 family=$2 mtu=$3 way from to headers
    heading "$ours ($(address "$ours" "$family")) and v1 ($(address v1 "$family")), behind the VM's kernel"
    # Of IP and ICMP.
    headers=28
    [[ $family == 4 ]] || headers=48
    for way in "$ours v1" "v1 $ours"; do
        read -r from to <<<"$way"
        check "$from pings $to" pings_from "$from" "$to" "$family" 56
        check "$from fetches from $to, both see the same addresses" same_addresses "$from" "$to" "$family"
        check "a file of 2 MiB from $to to $from arrives whole" whole_file "$from" "$to" "$family"
        check "$mtu bytes, not to be fragmented, $from to $to and back" \
            pings_from "$from" "$to" "$family" $((mtu - headers)) -M "do"
        check "$((mtu + 1)) bytes: $from is told by its node that the MTU is $mtu" \
            is_told "$from" "$to" "$family" "$mtu" $((mtu + 1 - headers))
        check "4000 bytes in fragments, $from to $to and back" pings_from "$from" "$to" "$family" 4000
    done
}

# A node's own processes and the pods of another, as a kubelet's probes and host networking want it.
nodes() {
    local way from to family
    heading "A node itself and the other end's pod"
    for family in 4 6; do
        for way in "node-a v1" "v1 node-a" "node-v a1" "a1 node-v"; do
            read -r from to <<<"$way"
            check "$from pings $to over IPv$family" pings_from "$from" "$to" "$family" 56
        done
    done
}

# pings_from FROM TO FAMILY BYTES [OPTION…]
pings_from() {
    local from=$1 to=$2 family=$3 bytes=$4
    shift 4
    at "$from" ping -q -n -c 2 -i 0.2 -w 3 -s "$bytes" "$@" "$(address "$to" "$family")"
}

# is_told FROM TO FAMILY MTU BYTES: FROM, as a pod that believes in more than there is, has that MTU
# from its gateway, and not from what it was told before.
is_told() {
    local from=$1 to=$2 family=$3 mtu=$4 bytes=$5 gateway said
    gateway=$("gateway$family" "${NODE_OF[$from]}")
    at "$from" ip link set eth0 mtu $((mtu + 100))
    at "$from" ip "-$family" route flush cache
    said=$(at "$from" ping -n -c 1 -w 2 -M "do" -s "$bytes" "$(address "$to" "$family")" 2>&1) || true
    at "$from" ip link set eth0 mtu "$mtu"
    grep -Eq "^From $gateway .*mtu ?= ?$mtu" <<<"$said" || { echo "$said" && return 1; }
}

# same_addresses FROM TO FAMILY: the server reports its client as what the client is.
same_addresses() {
    local path=who wanted seen
    wanted="$(address "$1" "$3") $(address "$2" "$3")"
    # Not that v1's says who it is itself.
    [[ $2 != v1 ]] || { path=cgi-bin/who && wanted=${wanted% *}; }
    seen=$(get "$1" "$(url "$(address "$2" "$3")" "$path")") || return 1
    [[ $seen == "$wanted" ]] || { echo "seen is '$seen' instead of '$wanted'" && return 1; }
}

# whole_file FROM TO FAMILY: FROM is the client.
whole_file() {
    local sum
    sum=$(get "$1" "$(url "$(address "$2" "$3")" blob)" 'sha256sum') || return 1
    [[ $sum == "$(cat "$LAB_DIR/blob.sha256")" ]] || { echo "it arrived damaged: $sum" && return 1; }
}

# get POD URL [FILTER]: the answer, through that filter if one is given. The VM has busybox's wget.
get() {
    local fetch='curl -sS --noproxy "*" --connect-timeout 2 --max-time 20'
    [[ $1 != v1 ]] || fetch='wget -qO-'
    at "$1" sh -c "$fetch '$2' | ${3:-cat}"
}

# What the VM's kernel counted while all that went on.
the_kernel_agrees() {
    local devices='tunl0 sit1 sit2' device
    [[ $1 == ipip ]] || devices=vxlan0
    heading "What node-v's kernel says of it"
    for device in $devices; do
        check "$device took packets from us, refused none, and sent us some" untroubled "$device"
    done
    check "v1 found no wrong checksum" no_wrong_checksum
}

untroubled() {
    in_vm ip -s -json link show dev "$1" | jq -c '.[0].stats64.rx + {sent: .[0].stats64.tx.packets}' |
        tee "$LAB_DIR/vm/stats" |
        jq -e '.packets > 0 and .sent > 0 and .errors + .dropped + .over_errors == 0' >/dev/null ||
        { cat "$LAB_DIR/vm/stats" && return 1; }
}

# The column is found by its title: its place differs from kernel to kernel.
no_wrong_checksum() {
    at v1 cat /proc/net/snmp >"$LAB_DIR/vm/snmp" || return 1
    awk '/^(Tcp|Udp|Icmp):/ && $2 ~ /^[A-Z]/ { split($0, title); next }
         /^(Tcp|Udp|Icmp):/ { for (i in title) if (title[i] == "InCsumErrors") {
             seen++; if ($i > 0) { print $1, $i; wrong = 1 } } }
         END { exit wrong || seen != 3 }' "$LAB_DIR/vm/snmp"
}

# on_the_wire MODE: the two ends' packets side by side, at the VM's cable.
on_the_wire() {
    local filter pattern
    case $1 in
        ipip)
            filter='ip proto 4'
            pattern="${HOST_ADDRESS[node-a]} > ${HOST_ADDRESS[node-v]}: IP $(address a1 4) > $VM_POD4: ICMP"
            ;;
        vxlan)
            filter='udp port 4789'
            pattern="${HOST_ADDRESS[node-a]}.[0-9]+ > ${HOST_ADDRESS[node-v]}.4789: VXLAN.* $(address a1 4) > $VM_POD4: ICMP"
            ;;
    esac
    heading "The VM's cable, as tcpdump sees it while a1 pings v1"
    if wire "$filter" "$pattern" to-node-v pings a1 "$VM_POD4"; then
        pass "$1: $(address a1 4) > $VM_POD4"
    else
        fail "$1: $(address a1 4) > $VM_POD4" "not seen"
    fi
}

check_accounts() {
    local sum
    if sum=$(accounts "$1"); then pass "$1: $sum"; else fail "$1: the books do not close" "$sum"; fi
}

kept() {
    heading "It stands, the VM for $((KEPT_S / 3600)) hours at most"
    say "  scripts/lab --id $LAB_ID exec v1 ping -c 3 $(address a1 4)"
    say "  scripts/lab --id $LAB_ID exec node-v ip -d link"
    say "  scripts/lab --id $LAB_ID down"
    # From here on it stands by itself.
    LAB_DIR=
}

main "$@"

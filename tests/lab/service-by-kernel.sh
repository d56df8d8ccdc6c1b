#!/bin/bash
# Services and hostPorts that the node's kernel translates, as kube-proxy and the plugin `portmap` have it
# do: between pods of one node, to another node's, of a pod with itself, from the node, and from outside.
# The pod behind a Service sees a pod that asks by the address by which its node masquerades: an answer to the
# pod's own would go from pod to pod, past the kernel that has to translate it back.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

NODE=${HOST_ADDRESS[node-a]}
NODE6=${HOST6[node-a]}
OUTSIDE=${HOST_ADDRESS[outside]}
OUTSIDE6=${HOST6[outside]}
# Services by the pod that is behind each.
declare -rA SERVICE4=([a1]=198.19.0.11 [a2]=198.19.0.12 [b1]=198.19.0.13)
declare -rA SERVICE6=([a1]=fd00:19::11 [a2]=fd00:19::12 [b1]=fd00:19::13)

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1
    who_servers_up a1 a2 b1
    underlay_add_ipv6 node-a outside
    translate
    services 4
    services 6
    check "status counts none of them as a connection to the world" counts 0
    host_ports 4 "$NODE" "$OUTSIDE"
    host_ports 6 "$NODE6" "$OUTSIDE6"
    others_pod
    check "node-a accounts for every packet" accounts node-a
    left_alone
    report_end
}

# A second family for the underlay of node-a and outside; a way to Services, where a node has a default
# route.
# What kube-proxy marks is masqueraded by itself: what comes from elsewhere than pods, and a pod's own
# packets to itself. It drops what is invalid to conntrack.
translate() {
    in_ns node-a nft -f - <<NFT
table inet kube-proxy {
  chain services {
    ip saddr != $CLUSTER4 ip daddr 198.19.0.0/24 meta mark set 0x4000
    ip6 saddr != $CLUSTER6 ip6 daddr fd00:19::/64 meta mark set 0x4000
    ip saddr $(address a1 4) ip daddr ${SERVICE4[a1]} meta mark set 0x4000
    ip6 saddr $(address a1 6) ip6 daddr ${SERVICE6[a1]} meta mark set 0x4000
$(for pod in a1 a2 b1; do
        printf '    meta l4proto { tcp, udp } th dport %s ip daddr %s dnat ip to %s\n' \
            "$SERVER_PORT" "${SERVICE4[$pod]}" "$(address "$pod" 4)"
        printf '    meta l4proto { tcp, udp } th dport %s ip6 daddr %s dnat ip6 to %s\n' \
            "$SERVER_PORT" "${SERVICE6[$pod]}" "$(address "$pod" 6)"
    done)
  }
  chain host-ports {
    meta l4proto { tcp, udp } th dport $SERVER_PORT ip daddr $NODE dnat ip to $(address a1 4)
    meta l4proto { tcp, udp } th dport $SERVER_PORT ip6 daddr $NODE6 dnat ip6 to $(address a1 6)
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    jump services
    jump host-ports
  }
  chain output {
    type nat hook output priority -100; policy accept;
    jump services
    jump host-ports
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state invalid drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 == 0 return
    masquerade
  }
}
NFT
}

# services FAMILY
services() {
    local seen
    seen=$("masquerade$1" node-a)
    reached "IPv$1: a Service with a pod of the same node" a1 "$(service a2 "$1")" "$seen" a2 "$1"
    reached "IPv$1: a Service with a pod of another node" a1 "$(service b1 "$1")" "$seen" b1 "$1"
    reached "IPv$1: a Service with the pod that asks" a1 "$(service a1 "$1")" "$seen" a1 "$1"
    reached "IPv$1: the node, a Service with a pod of its own" \
        node-a "$(service a2 "$1")" "$seen" a2 "$1"
    reached "IPv$1: the node, a Service with a pod of another" \
        node-a "$(service b1 "$1")" "$seen" b1 "$1"
    check "IPv$1: pods without a Service between them see their own addresses" talks a1 a2 "$1"
}

# host_ports FAMILY NODE OUTSIDE: a1's.
host_ports() {
    local seen
    seen=$("masquerade$1" node-a)
    reached "IPv$1: a hostPort from another pod of its node" a2 "$2" "$seen" a1 "$1"
    reached "IPv$1: a hostPort from its own pod" a1 "$2" "$seen" a1 "$1"
    reached "IPv$1: a hostPort from its node" node-a "$2" "$2" a1 "$1"
    reached "IPv$1: a hostPort from outside, which keeps its address" outside "$2" "$3" a1 "$1"
}

# node-b masquerades towards node-a: a tunnel is between them.
others_pod() {
    reached "a hostPort from a pod of another node" b1 "$NODE" "${HOST_ADDRESS[node-b]}" a1 4
}

# service POD FAMILY
service() { if (($2 == 4)); then printf '%s' "${SERVICE4[$1]}"; else printf '%s' "${SERVICE6[$1]}"; fi; }

# reached WHAT CLIENT ADDRESS SEEN POD FAMILY: by TCP, a whole file included, and by UDP; the pod sees the
# client as SEEN.
reached() {
    local wanted
    wanted="$4 $(address "$5" "$6")"
    check "$1, TCP" sees "$2" "$3" "$wanted"
    check "$1, UDP" sees_by_udp "$2" "$3" "$wanted"
    check "$1, a file" transfers "$2" "$3"
}

counts() { ctl node-a status --json | jq -e --argjson wanted "$1" '.masquerade.connections == $wanted'; }

# Without our table it is up to kube-proxy.
left_alone() {
    printf '\n[host]\nmasquerade = false\n' >>"$(node_dir node-a)/vswitch.toml"
    check "host.masquerade = false is taken" node_reload node-a
    check_not "without it a Service's pod is not reached" sees_by_udp a1 "${SERVICE4[a2]}" \
        "$(masquerade4 node-a) $(address a2 4)"
    in_ns node-a nft insert rule inet kube-proxy services \
        ip daddr 198.19.0.0/24 meta mark set 0x4000
    check "unless kube-proxy masquerades all" sees_by_udp a1 "${SERVICE4[a2]}" \
        "$(masquerade4 node-a) $(address a2 4)"
}

main "$@"

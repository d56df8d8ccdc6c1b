#!/bin/bash
# hostPorts that the daemon serves, by the conflist that is shipped: from the world, the node, its loopback
# address, the pod itself, pods of the node and of others; with and without hostIP. They outlive the
# daemon, and a ruleset that is flushed; they go with the pod, and so do the flows to it that the kernel
# tracks.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

NODE=${HOST_ADDRESS[node-a]}
NODE6=${HOST6[node-a]}
OUTSIDE=${HOST_ADDRESS[outside]}
OUTSIDE6=${HOST6[outside]}
# Where the pods' servers listen; the checks' clients ask for the hostPort SERVER_PORT.
readonly CONTAINER_PORT=8000 FLOW_PORT=4711

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    underlay_add_ipv6 node-a outside
    pod_plug node-a a2
    pod_plug node-b b1
    refused_ones
    plug_mapped a1 "$(mapping tcp), $(mapping udp), $(mapping sctp)"
    reached 4 "$NODE" "$OUTSIDE"
    reached 6 "$NODE6" "$OUTSIDE6"
    loopback
    from_other_nodes
    isolated 4 "$NODE" "$OUTSIDE"
    isolated 6 "$NODE6" "$OUTSIDE6"
    sctp
    shown
    closed_to_pods
    after_a_restart
    check "the ruleset is flushed" in_ns node-a nft flush ruleset
    check "and the hostPort is served again" wait_until 5 sees outside "$NODE" "$OUTSIDE $(address a1 4)"
    replaced
    with_host_ip
    taken_port
    check "DEL" pod_unplug node-a a3
    check_not "the port is nobody's" fetch outside "$NODE" who
    check "no translation is left" no_elements
    check "nor does a loopback address pass vsw0" localnet 0
    directly
    unserved
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# mapping PROTOCOL [HOST_IP]
mapping() {
    printf '{"hostPort": %s, "containerPort": %s, "protocol": "%s", "hostIP": "%s"}' \
        "$SERVER_PORT" "$CONTAINER_PORT" "$1" "${2:-}"
}

asking() { printf '{"runtimeConfig": {"portMappings": [%s]}}' "$1"; }

# plug_mapped POD MAPPINGS: a pod of node-a, with servers.
plug_mapped() {
    CNI_EXTRA=$(asking "$2") pod_plug node-a "$1"
    blob
    lab_spawn "server-$1" "$1" \
        /usr/bin/python3 "$root/scripts/lib/pod_server.py" "$CONTAINER_PORT" "$LAB_DIR/blob"
    lab_spawn "who-$1" "$1" /usr/bin/python3 "$root/scripts/lib/udp_who.py" serve "$CONTAINER_PORT"
    wait_until 10 listens "$1" "$CONTAINER_PORT" && wait_until 10 hears "$1" "$CONTAINER_PORT"
}

refused_ones() {
    refused "port 0" 'containerPort is to be 1 to 65535' '{"hostPort": 80, "containerPort": 0}'
    refused "a port of more than 16 bits" 'hostPort is to be 1 to 65535' \
        '{"hostPort": 65536, "containerPort": 80}'
    refused "an unknown protocol" 'tcp, udp or sctp' \
        '{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}'
    refused "a hostIP that is none" 'hostIP is no address' \
        '{"hostPort": 80, "containerPort": 80, "hostIP": "node-a"}'
    refused "hostIP ::1" 'what comes from ::1 reaches no pod' "$(mapping tcp ::1)"
    refused "the same port twice" 'asks for tcp 8080' "$(mapping tcp), $(mapping tcp "$NODE")"
}

# refused WHAT MESSAGE MAPPINGS
refused() {
    lab_add_ns refused
    check "$1 is refused, and the message tells why" is_refused "$2" "$3"
    check "and leaves nothing" test -z "$(in_ip refused -o link show | grep -v LOOPBACK)"
    lab_delete_ns refused
}

is_refused() {
    if CNI_EXTRA=$(asking "$2") cni node-a ADD refused >"$LAB_DIR/refused"; then
        echo "it is added" && return 1
    fi
    finds "$1" <"$LAB_DIR/refused" || { cat "$LAB_DIR/refused" && return 1; }
}

# reached FAMILY NODE OUTSIDE: a1's port.
reached() {
    local pod gateway seen
    pod=$(address a1 "$1") gateway=$(address node-a "$1") seen=$("masquerade$1" node-a)
    both_see "IPv$1: from outside" outside "$2" "$3 $pod"
    check "IPv$1: from outside, a file" transfers outside "$2"
    both_see "IPv$1: from the node" node-a "$2" "$2 $pod"
    both_see "IPv$1: from the node, to its address within the cluster" node-a "$gateway" "$seen $pod"
    both_see "IPv$1: from another pod of the node" a2 "$2" "$seen $pod"
    check "IPv$1: from another pod of the node, a file" transfers a2 "$2"
    both_see "IPv$1: from the pod itself" a1 "$2" "$seen $pod"
}

# both_see WHAT CLIENT ADDRESS WANTED
both_see() {
    check "$1, TCP" sees "$2" "$3" "$4"
    check "$1, UDP" sees_by_udp "$2" "$3" "$4"
}

# The kernel has no such setting for IPv6: what comes from ::1 leaves by no other interface than lo, so that
# ::1 is left to the node.
loopback() {
    check "a loopback address passes vsw0" localnet 1
    both_see "from the node's loopback address" node-a 127.0.0.1 "$(masquerade4 node-a) $(address a1 4)"
    both_see "from another of its loopback addresses" node-a 127.0.0.9 "$(masquerade4 node-a) $(address a1 4)"
    servers_up node-a
    check "IPv6: the node's loopback address is its own" sees node-a ::1 "::1 ::1"
    lab_stop server-node-a
}

localnet() { [[ $(in_ns node-a sysctl -n net.ipv4.conf.vsw0.route_localnet) == "$1" ]]; }

# Through a tunnel: node-b masqueraded its pod as it does towards the world.
from_other_nodes() {
    local node_b=${HOST_ADDRESS[node-b]}
    both_see "from another node" node-b "$NODE" "$node_b $(address a1 4)"
    both_see "from a pod of another node" b1 "$NODE" "$node_b $(address a1 4)"
}

# isolated FAMILY NODE OUTSIDE: policies isolate a1. Its node reaches it, and a client whose address they allow: the
# address that a1 sees.
isolated() {
    local family=$1 node=$2 outside=$3 pod seen bits=32
    pod=$(address a1 "$1") seen=$("masquerade$1" node-a)
    ((family == 4)) || bits=128
    sync_policies node-a "$(rule_set deny)" "$(subjects a1=deny/ a2=/)" >/dev/null
    check_not "IPv$1: the world does not reach the port of a pod that is isolated" fetch outside "$node" who
    check_not "nor by UDP" fetch_by_udp outside "$node"
    check_not "nor does another pod of the node" fetch a2 "$node" who
    both_see "the node does" node-a "$node" "$node $pod"
    sync_policies node-a "$(rule_set web "$(allow_blocks "$outside/$bits")")" "$(subjects a1=web/)" >/dev/null
    both_see "the world does where a policy allows its address" outside "$node" "$outside $pod"
    check_not "which allows no pod of the node" fetch a2 "$node" who
    sync_policies node-a "$(rule_set web "$(allow_blocks "$seen/$bits")")" >/dev/null
    both_see "a pod does where one allows the address by which the node masquerades" a2 "$node" "$seen $pod"
    check_not "which allows not the world" fetch outside "$node" who
    ctl node-a policies forget >/dev/null
}

# This kernel may have no SCTP sockets: the first packet of an association, and the answer.
sctp() {
    /usr/bin/python3 -c 'import scapy.all' 2>/dev/null || { skip "SCTP" "no scapy" && return; }
    check "from outside, SCTP" sctp_arrives
}

sctp_arrives() {
    local log=$LAB_DIR/logs/sctp.log seen=$LAB_DIR/sctp.txt pid
    : >"$log"
    in_ns a1 timeout 10 tcpdump -nl -t -c 1 -i eth0 "sctp and dst port $CONTAINER_PORT" >"$seen" 2>"$log" &
    pid=$!
    wait_until 5 grep -q 'listening on' "$log" || return 1
    in_ns outside /usr/bin/python3 -c "from scapy.all import *
send(IP(dst='$NODE')/SCTP(sport=5000, dport=$SERVER_PORT)/SCTPChunkInit(
    init_tag=7, a_rwnd=65536, n_out_streams=1, n_in_streams=1, init_tsn=7))" >>"$log" 2>&1 || return 1
    wait "$pid" && finds "$OUTSIDE.5000 > $(address a1 4).$CONTAINER_PORT" <"$seen"
}

shown() {
    check "vswitchctl shows them" shows_ports "tcp $SERVER_PORT -> $CONTAINER_PORT"
    check "and as JSON" shows_json
    check "CHECK passes" check_mapped "$(mapping tcp)"
    check_not "and fails for one that ADD was not told of" check_mapped "$(mapping tcp "$NODE")"
}

shows_ports() { ctl node-a show ports | finds "$1"; }

shows_json() {
    ctl node-a show ports --json | jq -e --argjson port "$SERVER_PORT" '
        [.[] | select(.name == "demo/a1") | .port_mappings[] | select(.host_port == $port).protocol]
        | sort == ["sctp", "tcp", "udp"]'
}

check_mapped() {
    CNI_EXTRA=$(asking "$1") cni node-a CHECK a1 "$(cat "$(node_dir node-a)/pods/a1.json")"
}

# While route_localnet is 1: what a pod sends to the node's loopback address is dropped by the switch.
closed_to_pods() {
    /usr/bin/python3 -c 'import scapy.all' 2>/dev/null || { skip "a pod and the node's loopback" "no scapy" && return; }
    lab_spawn loopback-server node-a /usr/bin/python3 -c \
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 9999)); s.recv(9); open('$LAB_DIR/reached', 'w')"
    wait_until 5 hears node-a 9999
    in_ns a2 /usr/bin/python3 -c "from scapy.all import *
for source in '$(address a2 4)', '127.0.0.1':
    sendp(Ether(dst='02:76:73:00:00:01')/IP(src=source, dst='127.0.0.1')/UDP(sport=9, dport=9999)/b'x', iface='eth0')" \
        >/dev/null 2>>"$LAB_DIR/logs/scapy.log"
    check "a pod's packets to the node's loopback address are dropped" wait_until 3 drops_two
    check_not "and do not arrive" test -e "$LAB_DIR/reached"
}

drops_two() {
    ctl node-a show drops --json | jq -e '[.reasons[] | select(.port == "demo/a2").packets] | add >= 2'
}

after_a_restart() {
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    node_start node-a
    node_adjust node-a
    check "after a restart, from outside" wait_until 5 sees outside "$NODE" "$OUTSIDE $(address a1 4)"
    check "and from another pod of the node" sees a2 "$NODE" "$(masquerade4 node-a) $(address a1 4)"
}

# A client that sends from one port all the time: to a1, to nobody, and to the pod that comes after.
replaced() {
    check "a flow from the world reaches the pod" flow_sees "$OUTSIDE $(address a1 4)"
    check "the kernel tracks it" is_tracked
    check "it is replaced" pod_unplug node-a a1
    check_not "the flow is forgotten" is_tracked
    check_not "and reaches nobody" flow_sees "$OUTSIDE $(address a1 4)"
    plug_mapped a3 "$(mapping tcp), $(mapping udp)"
    check "the flow reaches the new pod" flow_sees "$OUTSIDE $(address a3 4)"
    check "and so does TCP" sees outside "$NODE" "$OUTSIDE $(address a3 4)"
    check "DEL" pod_unplug node-a a3
}

flow_sees() {
    local seen
    seen=$(in_ns outside /usr/bin/python3 "$root/scripts/lib/udp_who.py" ask "$NODE" "$SERVER_PORT" "$FLOW_PORT") ||
        return 1
    [[ $seen == "$1" ]] || { echo "the two ends see '$seen' instead of '$1'" && return 1; }
}

is_tracked() { in_ns node-a grep "sport=$FLOW_PORT dport=$SERVER_PORT" /proc/net/nf_conntrack; }

with_host_ip() {
    plug_mapped a3 "$(mapping tcp "$NODE"), $(mapping udp "$NODE"), $(mapping tcp "$NODE6"), $(mapping udp "$NODE6")"
    both_see "hostIP: from outside" outside "$NODE" "$OUTSIDE $(address a3 4)"
    both_see "hostIP: from outside by IPv6" outside "$NODE6" "$OUTSIDE6 $(address a3 6)"
    both_see "hostIP: from another pod of the node" a2 "$NODE" "$(masquerade4 node-a) $(address a3 4)"
    both_see "hostIP: from the node" node-a "$NODE" "$NODE $(address a3 4)"
    check_not "hostIP: not by another address of the node" fetch node-a "$(address node-a 4)" who
    check_not "hostIP: nor by its loopback address" fetch node-a 127.0.0.1 who
    check "hostIP: no loopback address passes vsw0" localnet 0
}

taken_port() {
    refused "a port that another pod has" 'pod demo/a3' "$(mapping tcp)"
}

no_elements() {
    ! in_ns node-a nft list table inet vswitch | grep elements
}

# Without a tunnel pods answer another node, and its pods, past the kernel: they are masqueraded.
directly() {
    local seen node
    seen=$(masquerade4 node-a)
    for node in node-a node-b; do
        underlay_route_pods "$node"
        node_overlay "$node" 'encapsulation = "direct"'
    done
    plug_mapped a1 "$(mapping tcp), $(mapping udp)"
    check "pods of two nodes reach one another without a tunnel" talks_to_port
    both_see "without a tunnel: from a pod of another node" b1 "$NODE" "$seen $(address a1 4)"
    both_see "without a tunnel: from another node" node-b "$NODE" "$seen $(address a1 4)"
    both_see "without a tunnel: from outside" outside "$NODE" "$OUTSIDE $(address a1 4)"
    both_see "without a tunnel: from a pod of the node" a2 "$NODE" "$seen $(address a1 4)"
}

talks_to_port() { pings b1 "$(address a1 4)"; }

unserved() {
    printf '\n[host]\nmasquerade = false\n' >>"$(node_dir node-a)/vswitch.toml"
    node_overlay node-a 'encapsulation = "direct"'
    check "host.masquerade = false: status tells of the pod" unserved_is_told
    check "DEL" pod_unplug node-a a1
    refused "host.masquerade = false: a hostPort" 'host.masquerade is false' "$(mapping tcp)"
}

unserved_is_told() { ctl node-a status | finds '1 pod(s) have hostPorts, which nothing serves'; }

main "$@"

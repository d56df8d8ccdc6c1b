#!/bin/bash
# What vswitch-agent does when one of the three is gone: the API server, vswitchd, or itself. Pods of
# two nodes ping each other meanwhile, and lose nothing as long as both vswitchd live.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all_kubernetes.sh
. "$root/scripts/lib/all_kubernetes.sh"
# shellcheck source=scripts/lib/agent.sh
. "$root/scripts/lib/agent.sh"

main() {
    "$root/scripts/kubernetes-server" build
    setup_binaries_and_agent
    lab_trap
    lab_create
    agent_cluster_up
    cluster
    server_restarts
    watch_expires
    agent_dies
    agent_starts_alone
    daemon_restarts
    daemon_is_gone
    agent_stops
    report_end
}

cluster() {
    local node
    agents_up
    pod_plug node-a a1
    pod_plug node-b b1
    # So that there is something that must not change.
    node_create node-c 198.18.7.0/24 203.0.113.70
    wait_until 10 has_peers node-a 2 || die "node-a has not learnt of node-c"
    wait_until 10 pings a1 "$(address b1 4)" || die "The pods do not reach each other"
    # The first patch of each Node comes back as one more event.
    for node in node-a node-b; do
        wait_until 10 is_up "$node" || die "$node is not published"
    done
}

# traffic_begin: from a1 to b1, fifty a second.
traffic_begin() {
    rm -f "$LAB_DIR/logs/traffic.log"
    lab_spawn traffic a1 ping -n -i 0.02 "$(address b1 4)"
}

# traffic_end: none was lost.
traffic_end() {
    lab_signal traffic INT
    check "pods lost nothing of $(pings_answered | tail -n 1) packets" all_answered
}

# The numbers of the packets that were pings_answered. The last ones may still have been under way.
pings_answered() { sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$LAB_DIR/logs/traffic.log" | sort -nu; }

all_answered() {
    pings_answered | awk '$1 != NR { print "number " NR " was lost"; lost = 1; exit }
        END { exit lost || NR < 10 }'
}

# unchanged_from EPOCH MESSAGES: node-a forwards by the same tables, and was told nothing.
unchanged_from() {
    [[ $(epoch node-a) == "$1" ]] && agent_state node-a ".sync_messages == $2"
}

logged() { grep -c "$2" "$LAB_DIR/logs/agent-$1.log"; }

logged_times() { [[ $(logged "$1" "$2") == "$3" ]]; }

server_restarts() {
    heading "The API server restarts"
    local epoch messages
    epoch=$(epoch node-a)
    messages=$(agent_state node-a .sync_messages)
    traffic_begin
    kube_stop_api
    check "the agent sees that it is gone" wait_until 20 agent_state node-a '.api_server == false'
    check "and stays ready" agent_ready node-a
    # Some attempts later.
    wait_until 5 false || true
    check "it says so once" logged_times node-a 'the API server cannot be watched, and' 1
    kube_start_api
    check "and that it is back" wait_until 40 agent_state node-a .api_server
    check "nothing was disturbed" unchanged_from "$epoch" "$messages"
    node_create node-d 198.18.9.0/24 203.0.113.71
    check "what comes then is taken" wait_until 10 peer node-a node-d true
    traffic_end
}

watch_expires() {
    heading "The watch expires"
    local epoch messages lists
    epoch=$(epoch node-a)
    messages=$(agent_state node-a .sync_messages)
    lists=$(logged node-a 'listed [0-9]* Node')
    traffic_begin
    kube_compact
    check "the Nodes are listed anew" wait_until 60 logged_times node-a 'listed [0-9]* Node' $((lists + 1))
    check "the watch goes on" wait_until 40 agent_state node-a .api_server
    check "nothing was disturbed" unchanged_from "$epoch" "$messages"
    node_delete node-d
    check "what comes then is taken" wait_until 20 no_peer node-a node-d
    traffic_end
}

agent_dies() {
    heading "The agent is killed"
    local epoch
    epoch=$(epoch node-a)
    traffic_begin
    lab_signal agent-node-a KILL
    agent_start node-a
    check "the next one is ready" wait_until 20 fresh_and_ready node-a
    check "and changed nothing" unchanged_from "$epoch" 0
    lab_signal agent-node-a KILL
    node_delete node-c
    node_create node-e 198.18.10.0/24 203.0.113.72
    agent_start node-a
    check "what came meanwhile is taken" wait_until 20 peer node-a node-e true
    check "and what went is withdrawn" wait_until 10 no_peer node-a node-c
    check "in one message" wait_until 10 agent_state node-a '.sync_messages == 1'
    traffic_end
}

# The state is that of the agent that runs: it is newer than it.
fresh_and_ready() {
    [[ $(agent_state_file "$1") -nt /proc/$(lab_pid "agent-$1") ]] && agent_ready "$1"
}

agent_starts_alone() {
    heading "The agent starts, and there is no API server"
    local epoch
    lab_stop agent-node-a
    kube_stop_api
    epoch=$(epoch node-a)
    traffic_begin
    agent_start node-a
    check "it waits" wait_until 20 logged_in_last node-a 'the API server cannot be watched'
    check "is not ready" not_ready node-a
    check "and touches nothing" unchanged_from "$epoch" 0
    kube_start_api
    check "until there is one" wait_until 40 agent_ready node-a
    check "still nothing was disturbed" unchanged_from "$epoch" 0
    traffic_end
}

not_ready() { ! agent_ready "$1"; }

# logged_in_last NODE TEXT: by the agent that runs.
logged_in_last() { tac "$LAB_DIR/logs/agent-$1.log" | sed '/vswitch-agent .* starts for/q' | finds "$2"; }

daemon_restarts() {
    heading "vswitchd restarts"
    # The agent of node-b, too, had to do without an API server until a moment ago.
    check "both nodes have the same peers" wait_until 40 has_settled node-b
    lab_signal vswitchd-node-b KILL
    node_start node-b
    check "it knows its peers" has_settled node-b
    check "and its pods' prefixes" pod_prefixes_kept node-b
    check "the agent is back with it" wait_until 20 logged_in_last node-b 'it is over that vswitchd'
    node_create node-f 198.18.11.0/24 203.0.113.73
    check "and goes on telling" wait_until 20 peer node-b node-f true
    check "its Node was not taken for broken" is_up node-b
}

has_settled() { has_peers "$1" 2 && peer "$1" node-e true; }

pod_prefixes_kept() {
    ctl "$1" --json status | jq -e --arg prefix "${POD_PREFIX4[$1]}" '.pod_prefixes | index($prefix) != null'
}

is_up() {
    is_node "$1" '.status.conditions | any(.type == "NetworkUnavailable" and .status == "False")'
}

daemon_is_gone() {
    heading "vswitchd does not come back"
    lab_stop vswitchd-node-b
    check "after a while its Node says so" wait_until 30 is_node node-b \
        '.status.conditions | any(.type == "NetworkUnavailable" and .status == "True" and .reason == "VswitchdIsDown")'
    check "and the agent is not ready" not_ready node-b
    check "the log says it once" [ "$(logged node-b 'vswitchd cannot be spoken to, and')" -le 2 ]
    node_delete node-f
    node_start node-b
    check "it comes back" wait_until 20 agent_ready node-b
    check "and its Node says so" wait_until 20 is_up node-b
    check "what it missed it is told" wait_until 20 no_peer node-b node-f
}

agent_stops() {
    heading "The agent stops"
    # Its pods' interfaces went with node-b's vswitchd.
    pod_unplug node-b b1
    pod_plug node-b b1
    lab_signal agent-node-a TERM
    check "at once" lab_gone agent-node-a
    check "and says that forwarding goes on" logged_in_last node-a 'stops; vswitchd forwards on'
    check "peers stay" peer node-a node-b true
    check "pods reach each other" wait_until 5 pings a1 "$(address b1 4)"
    check "nobody takes it for ready" not_ready node-a
    check "the conflist stays" test -f "$(node_dir node-a)/net.d/10-vswitch.conflist"
}

main "$@"

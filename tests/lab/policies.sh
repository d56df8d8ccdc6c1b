#!/bin/bash
# Policies in the datapath: two nodes, whose daemons are told groups, rule sets and the rule sets of each pod
# as a cluster's agent tells them. What is allowed passes, and nothing else does: when policies change, when
# the daemon is killed, and before a pod's policies are known.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"

# A transfer of so many files goes on while policies change.
readonly HELD_BLOBS=10

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1
    check "pods speak to one another before anybody told policies" talks a1 a2 4
    denied_by_default
    followed
    allowed_by_group_and_port
    explained
    denied_from_within
    revoked
    killed
    held
    bad_policies
    forgotten
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# told NODE PART…: a commit of these.
told() { sync_policies "$@" >/dev/null; }

# allow GROUP [PROTOCOL FIRST LAST]
allow() {
    jq -cn --arg group "$1" --argjson ports "${2:+[{\"protocol\": $2, \"ports\": [$3, $4]\}]}" \
        '{index: 0, action: "allow", peers: {of: {groups: [$group]}}} + (if $ports then {$ports} else {} end)'
}

# member KEY GROUP POD…: both addresses of each join or leave.
member() {
    local key=$1 group=$2 pod family
    shift 2
    for pod in "$@"; do
        for family in 4 6; do address "$pod" "$family" && echo; done
    done | jq -cRs --arg key "$key" --arg group "$group" '{groups: [{group: $group, ($key): split("\n") | map(select(. != ""))}]}'
}

denied_by_default() {
    told node-a "$(rule_set deny)" "$(subjects a1=/ a2=deny/)"
    told node-b "$(subjects b1=/)"
    local family
    for family in 4 6; do
        check_not "IPv$family: nobody of its node reaches a pod that is isolated" fetch a1 "$(address a2 "$family")" who
        check_not "nor does a pod of another" fetch b1 "$(address a2 "$family")" who
        check_not "nor by ICMP" pings b1 "$(address a2 "$family")"
        check "its own node does" pings node-a "$(address a2 "$family")"
        check "and it reaches others" talks a2 b1 "$family"
        check "who is not isolated is reached" talks b1 a1 "$family"
    done
    check "the drop has a name" drops node-a policy-denied
}

# Who follows what is dropped sees who denies it.
followed() {
    local a2 code=0
    a2=$(address a2 4)
    check "drops --follow shows a denied connection, and ends when it has shown so many" follows_denied a1 --pod demo/a2
    check "it names both ends, and who denies" seen "policy-denied  *in   $(address a1 4):[0-9]* (demo/a1) > $a2:$SERVER_PORT (demo/a2) TCP S  demo/a2 isolated by demo/deny"
    check "the last line says how many there were" seen "^-- at most 10/s a reason and worker: 1 shown; [1-9][0-9,]* dropped of all ports as policy-denied$"
    check "it shows what comes from another node, as JSON" follows_denied b1 --json
    check "an object a line, of the packet in its tunnel" one_object
    timeout --preserve-status -s INT 2 "$bin/vswitchctl" --socket "$(node_socket node-a)" drops --follow >"$LAB_DIR/followed" || code=$?
    check "an interrupt ends it well" test "$code" -eq 0
    check "with its last line" seen "^-- at most .* shown; "
    check "so does its time" ctl node-a drops --follow --for 1
    check_not "a pod that is not there is not followed" ctl node-a drops --follow --pod demo/b7 --for 1
    check "without --follow it is what show drops is" finds "^PORT  *REASON" <<<"$(ctl node-a drops)"
}

# What was followed is one connection of b1 to a2.
one_object() {
    jq -es --arg a2 "$(address a2 4)" --arg b1 "$(address b1 4)" --argjson port "$SERVER_PORT" \
        'length == 1 and all(.[]; .source.address == $b1 and .destination == {name: "demo/a2", address: $a2, $port} and .port == "eth0" and .direction == "in")' "$LAB_DIR/followed"
}

# follows_denied POD ARGUMENT…: the first denied connection of POD to a2 that is seen by one who follows.
follows_denied() {
    local follower is_seen
    : >"$LAB_DIR/followed"
    ctl node-a drops --follow --reason policy-denied --count 1 --for 30 "${@:2}" >"$LAB_DIR/followed" &
    follower=$!
    wait_until 10 denied_is_seen "$1" && is_seen=yes
    wait "$follower" && [[ ${is_seen:-} ]]
}

denied_is_seen() {
    fetch "$1" "$(address a2 4)" who || true
    [[ -s $LAB_DIR/followed ]]
}

seen() { finds -- "$1" "$LAB_DIR/followed" || { cat "$LAB_DIR/followed" && return 1; }; }

allowed_by_group_and_port() {
    local family
    told node-a "$(rule_set web "$(allow clients 6 1 $((SERVER_PORT - 1)))")" "$(member join clients a1)" "$(subjects a2=web/)"
    for family in 4 6; do
        check_not "IPv$family: a member of the group reaches no port but those" fetch a1 "$(address a2 "$family")" who
    done
    told node-a "$(rule_set web "$(allow clients 6 1 "$SERVER_PORT")")"
    for family in 4 6; do
        check "IPv$family: until they have one more" talks a1 a2 "$family"
        check_not "and nobody else does" fetch b1 "$(address a2 "$family")" who
    done
    told node-a "$(member join clients b1)"
    for family in 4 6; do
        check "IPv$family: who joins the group reaches it, from another node" talks b1 a2 "$family"
    done
    ctl node-a show policies >"$LAB_DIR/policies"
    check "show policies names the policy of the pod" finds "^demo/a2  *ingress  *policies  *network  *1  *demo/web$" "$LAB_DIR/policies"
    check "and counts what was decided" \
        finds "^decided since the start: ingress [1-9][0-9]* allowed, [1-9][0-9]* denied; egress 0 allowed" "$LAB_DIR/policies"
    check "and who has none" finds "^demo/a1  *ingress  *open" "$LAB_DIR/policies"
}

# What decides is told before anybody tries.
explained() {
    local a2
    a2=$(address a2 4)
    check "explain allows what is allowed" explains 0 node-a demo/a1 "demo/a2:$SERVER_PORT"
    check "by its rule" said "^ingress  demo/a2 selected by demo/web; allowed by demo/web rule 0$"
    check "it tells that the client has been there" said "^session  .*[0-9] "
    check "explain denies what is denied" explains 1 node-a demo/a1 "demo/a2:$((SERVER_PORT + 1))"
    check "and why" said "^ingress  demo/a2 selected by demo/web; denied, as no rule allows it$"
    check "and on which node" said "^result   DENIED on node-a (policy-denied)"
    check "IPv6 likewise" explains 1 node-a demo/a1 "[$(address a2 6)]:$((SERVER_PORT + 1))"
    check "a ping likewise" explains 1 node-a demo/a1 demo/a2 --protocol icmp
    check "what comes from another node is explained" explains 0 node-a "$(address b1 4)" "$a2:$SERVER_PORT"
    check "that node judges the other half" said "^egress   on node-b: ask there$"
    check "there, too" explains 0 node-b demo/b1 "$a2:$SERVER_PORT"
    check "it says who may deny" said "^result   ALLOWED on node-b; node-a may deny it$"
    check "and how packets go there" said "^route    node-a, vxlan, mtu 1450$"
    check "a probe of this node is explained" explains 0 node-a "$(in_ip a1 -json -4 route show default | jq -r '.[0].gateway')" "demo/a2:$((SERVER_PORT + 1))"
    check "no policy concerns the node" said "^egress   this node itself, which no policy selects; allowed$"
    check "and those of the pod do not deny it" said "^ingress  demo/a2 is reached by its own node whatever its policies say; allowed$"
    check "a connection to the node is explained" explains 0 node-a demo/a1 "$(in_ip a1 -json -4 route show default | jq -r '.[0].gateway'):22"
    check "by the node's end too" said "^ingress  this node itself, which no policy selects; allowed$"
    serve 5432 "$SERVER_PORT"
    check "a service is explained by its backend" explains 0 node-a demo/a1 demo/web.svc
    check "which is named" said "^service  demo/web:http, 1 usable of 1; chosen $a2:$SERVER_PORT (demo/a2)$"
    serve 5432 $((SERVER_PORT + 1))
    check "and denied by that" explains 1 node-a demo/a1 demo/web:http
    check "JSON has it all" finds '"dropped": "policy-denied"' <<<"$(ctl node-a --json explain demo/a1 demo/web:http)"
    check "a name that is not known is no denial" explains 2 node-a demo/a1 demo/b7:80
    check "it says which are" said 'knows no pod or service "demo/b7"; most like it: demo/'
}

# explains CODE NODE ARGUMENT…: the answer is kept for `said`.
explains() {
    local code=0
    ctl "$2" explain "${@:3}" >"$LAB_DIR/explained" 2>&1 || code=$?
    [[ $code == "$1" ]] || { cat "$LAB_DIR/explained" && return 1; }
}

said() { finds -- "$1" "$LAB_DIR/explained" || { cat "$LAB_DIR/explained" && return 1; }; }

# serve PORT BACKEND_PORT: node-a has a service with a2 as its backend.
serve() {
    /usr/bin/python3 "$root/tests/lab/ask.py" "$(node_socket node-a)" sync-services "$(jq -cn \
        --arg address "$(address a2 4)" --argjson port "$1" --argjson at "$2" '{complete: false, gone: [], services: [
            {name: "demo/web:http", protocol: "TCP", $port, addresses: ["198.19.0.7"], backends: [{$address, port: $at}]}]}')" >/dev/null
}

denied_from_within() {
    told node-b "$(rule_set deny)" "$(subjects b1=/deny)"
    check_not "a pod that may send nothing reaches no other" fetch b1 "$(address a1 4)" who
    check "it answers" talks a1 b1 4
    told node-b "$(subjects b1=/)"
    check "until it may again" talks b1 a1 4
}

# A transfer stops where its client is allowed no longer.
revoked() {
    local held
    in_ns a1 curl -sS --noproxy '*' --limit-rate 2M --max-time 60 "$(url "$(address a2 4)" "blob/$HELD_BLOBS")" >"$LAB_DIR/held" 2>/dev/null &
    held=$!
    check "a transfer begins" wait_until 5 test -s "$LAB_DIR/held"
    told node-a "$(member leave clients a1)"
    check "it is revoked" wait_until 5 drops node-a policy-revoked
    kill "$held" 2>/dev/null || true
    wait "$held" 2>/dev/null || true
    check_not "and there is no other" fetch a1 "$(address a2 4)" who
    check "others go on" talks b1 a2 4
}

killed() {
    in_force node-a >"$LAB_DIR/before"
    lab_signal vswitchd-node-a KILL
    wait_until 5 lab_gone vswitchd-node-a
    node_spawn node-a
    wait_until 20 ctl node-a status
    node_adjust node-a >/dev/null
    in_force node-a >"$LAB_DIR/after"
    check "a daemon that follows one that was killed has its policies" diff "$LAB_DIR/before" "$LAB_DIR/after"
    check "who was allowed is" wait_until 10 talks b1 a2 4
    check_not "who was denied is" fetch a1 "$(address a2 4)" who
}

# in_force NODE: everything but the memory that it takes.
in_force() { ctl "$1" --json show policies | jq 'del(.summary | .bytes, .ingress, .egress)'; }

# Nothing reaches a pod, and nothing leaves it, before its policies are known.
held() {
    local begin adding
    begin=${EPOCHREALTIME/./}
    pod_plug node-a a3
    check "an ADD waits for the policies of its pod" test $((${EPOCHREALTIME/./} - begin)) -ge 2000000
    servers_up a3
    check_not "a pod whose policies nobody told reaches nobody" fetch a3 "$(address b1 4)" who
    check_not "and is not reached" fetch b1 "$(address a3 4)" who
    check "its own node reaches it" pings node-a "$(address a3 4)"
    check "the drop has a name" drops node-a policy-pending
    ctl node-a show policies >"$LAB_DIR/policies"
    check "show policies says so" finds "^demo/a3  *egress  *pending .*not known yet$" "$LAB_DIR/policies"
    told node-a "$(subjects a3=/)"
    check "with its policies it speaks" talks a3 b1 4
    pod_plug node-a a4 &
    adding=$!
    wait_until 10 is_shown a4
    told node-a "$(subjects a4=web/)"
    check "an ADD ends when its pod's policies are told" wait_until 10 is_plugged a4
    wait "$adding"
    check_not "and the pod is what they say" fetch a3 "$(address a4 4)" who
}

is_plugged() { [[ -s $LAB_DIR/addresses/$1.6 ]]; }

is_shown() { ctl node-a show policies | finds "^demo/$1 .*pending"; }

# What is refused closes what it concerns, and nothing else.
bad_policies() {
    local answer
    answer=$(sync_policies node-a "$(rule_set bad "$(allow clients 6 81 80)")" "$(subjects a3=bad/)")
    check "a policy that cannot be is refused by name" finds "policy demo/bad, rule 0: the ports 81 to 80" <<<"$answer"
    check_not "its pod is closed" fetch b1 "$(address a3 4)" who
    check "status names it" finds "1 rule set(s) are refused" <<<"$(ctl node-a status)"
    check "others lose nothing" talks b1 a2 4
    told node-a "$(subjects a3=/)"
    check_not "a part that is out of order is refused" tell node-a sync-policies '{"part": 3, "commit": true}'
    check "and changes nothing" talks b1 a3 4
}

forgotten() {
    ctl node-a policies forget
    check "policies that are forgotten isolate nobody" talks a1 a2 4
}

main "$@"

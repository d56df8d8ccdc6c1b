# shellcheck shell=bash
# Services and policies as a cluster's agent tells them to the daemons of a lab. Sourced after all.sh.

# tell NODE REQUEST JSON: asks that node's daemon, and prints its answer.
tell() { /usr/bin/python3 "$root/tests/lab/ask.py" "$(node_socket "$1")" "$2" "$3"; }

# sync_services NODE JSON: a ServiceSync; prints which of it is refused.
sync_services() { tell "$1" sync-services "$2"; }

# service NAME PROTOCOL ADDRESSES BACKENDS: a service at these virtual addresses, as JSON; the last two are
# JSON, too. It has the port on which the lab's servers listen.
service() {
    jq -cn --arg name "$1" --arg protocol "$2" --argjson addresses "$3" --argjson backends "$4" \
        --argjson port "$SERVER_PORT" '{$name, $protocol, $port, $addresses, $backends}'
}

# sync_policies NODE PART…: one commit of these, each an object with keys of a PolicySync.
sync_policies() {
    local node=$1
    shift
    tell "$node" sync-policies "$(jq -cs 'add + {part: 0, commit: true}' <<<"$*")"
}

# subjects POD=INGRESS/EGRESS…: the rule sets of pods, one a direction or none.
subjects() {
    local pod ids
    for pod in "$@"; do
        ids=${pod#*=}
        jq -cn --arg pod "${pod%%=*}" --arg in "${ids%/*}" --arg out "${ids#*/}" \
            '{pod: {namespace: "demo", name: $pod, uid: "uid-of-\($pod)"}} + ({ingress: $in, egress: $out}
             | map_values(if . == "" then [] else [.] end))'
    done | jq -cs '{subjects: .}'
}

# rule_set NAME [RULE…]: of the policy demo/NAME; without a rule it allows nothing.
rule_set() {
    local name=$1
    shift
    jq -cs --arg name "$name" '{rule_sets: [{id: $name, policy: "demo/\($name)", tier: "network-policy", rules: .}]}' <<<"$*"
}

# allow_blocks CIDR…: a rule that allows these peers.
allow_blocks() {
    printf '%s\n' "$@" |
        jq -cRs '{index: 0, action: "allow", peers: {of: {blocks: (split("\n") | map(select(. != "") | {cidr: .}))}}}'
}

# drops NODE REASON: some packets were.
drops() { ctl "$1" show drops | finds " $2 "; }

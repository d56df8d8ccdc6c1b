# shellcheck shell=bash
# `scripts/demo guestbook`: frontends, a Redis leader and two followers as a real cluster has them, on two nodes,
# through Services, with policies. Sourced after cluster.sh.

readonly GUESTBOOK=$root/scripts/lib/guestbook
# Those that go to a follower which is killed, in the moment until both nodes know that it is gone.
readonly MOST_FAILED_READS=10

demo_guestbook() {
    local keep=$1 before=$failed
    heading "══ guestbook ══"
    "$root/scripts/kubernetes-server" build
    setup_packages containerd kubelet guestbook
    setup_binaries_and_agent
    lab_create
    guestbook_image
    cluster_up
    cluster_installs_vswitch
    guestbook_starts
    guestbook_is_used
    names_are_served
    api_server_is_reached
    guestbook_denies
    guestbook_under_load
    guestbook_accounts
    if [[ -n $keep ]]; then
        say "The lab stands: in its namespaces $(ns outside), $(ns node-a), $(ns node-b)"
        say "  KUBECONFIG is $KUBE_DIR/admin.kubeconfig, in the first of them"
        say "To remove it: scripts/lab --id $LAB_ID down"
        LAB_DIR=
        return 0
    fi
    ((failed == before)) || lab_keep_logs
    lab_down
}

# Redis of Debian's package, and busybox for the frontend, of this machine's files.
guestbook_image() {
    local dir=$LAB_DIR/image-guestbook
    image_of_busybox guestbook
    mkdir -p "$dir/root/srv/cgi-bin"
    cp "$GUESTBOOK/guestbook.cgi" "$dir/root/srv/cgi-bin/guestbook"
    cp "$GUESTBOOK/load.sh" "$dir/root/bin/load"
    cp "$GUESTBOOK/names.pl" "$dir/root/srv/"
    echo yes >"$dir/root/srv/alive"
    image_add_programs guestbook /usr/bin/redis-server /usr/bin/redis-cli /usr/bin/curl /usr/bin/perl
    image_archive guestbook localhost/guestbook:1 sleep 1000000 >/dev/null
    cluster_images+=(guestbook)
}

guestbook_starts() {
    step "The guestbook: Services, policies that deny everything but what it needs, then its pods"
    kubectl_ create namespace guestbook >/dev/null
    check "its Services are made" kubectl_ apply -f "$GUESTBOOK/services.yaml"
    check "its policies are made" kubectl_ apply -f "$GUESTBOOK/policies.yaml"
    check "its pods are made" kubectl_ apply -f "$GUESTBOOK/deployments.yaml"
    local name
    for name in redis-leader redis-follower frontend; do
        check "$name is ready: its kubelets' probes pass" \
            kubectl_ -n guestbook rollout status --timeout 120s "deployment/$name"
    done
    kubectl_ create namespace elsewhere >/dev/null
    visitor elsewhere visitor node-a
    visitor elsewhere neighbour node-b
    visitor guestbook stranger node-a
    kubectl_ -n guestbook get pods -o wide | sed 's/^/  /'
}

# visitor NAMESPACE NAME NODE: a pod that does nothing by itself.
visitor() {
    kubectl_ apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $2
  namespace: $1
  labels: {app: $2}
spec:
  nodeName: $3
  terminationGracePeriodSeconds: 0
  containers:
  - {name: shell, image: "localhost/guestbook:1", command: [sleep, "36000"]}
YAML
    kubectl_ -n "$1" wait --timeout 60s --for condition=Ready "pod/$2" >/dev/null
}

# in_pod NAMESPACE NAME COMMAND…
in_pod() { kubectl_ -n "$1" exec "$2" -- "${@:3}"; }

# service_address NAME [NAMESPACE]: of the guestbook, unless another is named.
service_address() { kube_api GET "/api/v1/namespaces/${2:-guestbook}/services/$1" | jq -er .spec.clusterIP; }

# page NAMESPACE POD [QUERY]: what the frontend answers.
page() {
    in_pod "$1" "$2" curl -sSf --max-time 5 "http://$(service_address frontend)/cgi-bin/guestbook${3:+?$3}"
}

guestbook_is_used() {
    step "A visitor writes through the frontends and the leader, and reads through the followers"
    check "an entry is written" page elsewhere visitor add=hello
    check "and read" wait_until 10 has_entry hello
    check "from outside, by a node's port" wait_until 5 entry_from_outside hello
}

has_entry() { page elsewhere visitor | grep -qx "$1"; }

entry_from_outside() {
    in_ns outside curl -sS --noproxy '*' --max-time 5 "http://${HOST_ADDRESS[node-a]}:30080/cgi-bin/guestbook" | grep -qx "$1"
}

# As a cluster's DNS is: over UDP, by a server on each node.
names_are_served() {
    local pod
    step "Pods of both nodes ask a DNS service, which has a server on each node"
    check "it is made" kubectl_ apply -f "$GUESTBOOK/names.yaml"
    check "its servers run" kubectl_ -n elsewhere rollout status --timeout 60s daemonset/names
    check "both are its endpoints" wait_until 10 has_endpoints elsewhere names 2
    for pod in visitor neighbour; do
        check "a resolver in $pod is answered" until_deadline 10 resolves "$pod"
        check "and so are 50 queries that are made once" answered_each "$pod" 50
    done
    check "by both servers" test "$(sort -u "$LAB_DIR"/answers-* | wc -l)" = 2
}

# resolves POD
resolves() { in_pod elsewhere "$1" nslookup -type=a who.example "$(service_address names elsewhere)"; }

# answered_each POD TIMES: keeps the answers, each the address of the server that gave it.
answered_each() {
    in_pod elsewhere "$1" perl /srv/names.pl ask "$(service_address names elsewhere)" "$2" >"$LAB_DIR/answers-$1" &&
        [[ $(wc -l <"$LAB_DIR/answers-$1") == "$2" ]]
}

# Its backend is a process outside of the pods' network.
api_server_is_reached() {
    local pod
    step "Pods of both nodes speak to the API server by its own Service"
    for pod in visitor neighbour; do
        check "it answers $pod" api_server_answers "$pod"
    done
}

# api_server_answers POD: whose account has the certificate to know it by, and the environment its address.
# shellcheck disable=SC2016  # The shell in the pod expands it.
api_server_answers() {
    in_pod elsewhere "$1" sh -c 'curl -sSf --max-time 5 --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
        "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version"' | jq -e .gitVersion
}

# has_endpoints NAMESPACE SERVICE COUNT
has_endpoints() {
    kube_api GET "/api/v1/namespaces/$1/endpoints/$2" | jq -e --argjson count "$3" '[.subsets[]?.addresses[]?] | length == $count'
}

guestbook_denies() {
    local leader
    leader=$(service_address redis-leader)
    step "What policies do not allow"
    check_not "a visitor does not reach the leader" speaks_redis elsewhere visitor "$leader"
    check_not "nor does a pod of the namespace that no policy mentions" speaks_redis guestbook stranger "$leader"
    check_not "which reaches nothing else either" page guestbook stranger
    explain node-a guestbook/stranger guestbook/redis-leader
    check "it is explained by the policy that isolates the one" explains 'egress .* selected by guestbook/default-deny'
    check "which its node knows" explains 'DENIED on node-a \(policy-denied\)'
    explain node-b "$(pod_ip elsewhere visitor)" guestbook/redis-leader
    check "and by those that isolate the other" explains 'ingress .* selected by .*guestbook/redis.*; denied'
    check "which the leader's node knows" explains 'DENIED on node-b \(policy-denied\)'
    local node
    for node in node-a node-b; do
        check_not "nor does the outside, by a port of $node, which kube-proxy masquerades" \
            redis_answers_outside "${HOST_ADDRESS[$node]}"
    done
}

# explain NODE SOURCE DESTINATION: shows what its daemon says of such a connection.
explain() {
    say "  $1 $ vswitchctl explain $2 $3"
    on_host "$1" "$bin/vswitchctl" explain "$2" "$3" >"$LAB_DIR/explained" || true
    sed 's/^/    /' "$LAB_DIR/explained"
}

# explains PATTERN: a line of the last explanation.
explains() { grep -Eq "$1" "$LAB_DIR/explained" || { cat "$LAB_DIR/explained" && return 1; }; }

# pod_ip NAMESPACE NAME
pod_ip() { kube_api GET "/api/v1/namespaces/$1/pods/$2" | jq -er .status.podIP; }

# speaks_redis NAMESPACE POD ADDRESS
speaks_redis() { [[ $(in_pod "$1" "$2" timeout 3 redis-cli -h "$3" ping) == PONG ]]; }

redis_answers_outside() { [[ $(in_ns outside timeout 3 redis-cli -h "$1" -p 30379 ping) == PONG ]]; }

guestbook_under_load() {
    local node before
    step "A visitor writes and reads without pause, while a follower and both daemons die, and the frontends are replaced"
    load_begins
    check "a follower that is read from is killed at once" follower_dies
    check "another takes its place" kubectl_ -n guestbook rollout status --timeout 120s deployment/redis-follower
    check "entries are written and read" load_goes_on
    before=$(failures reads)
    say "  $before reads of the one that died were tried again"
    check "which are few" test "$before" -le "$MOST_FAILED_READS"
    for node in node-a node-b; do
        check "vswitchd of $node is killed" vswitchd_dies "$node"
        check "entries are written and read" load_goes_on
    done
    check "the frontends are replaced, one after the other" kubectl_ -n guestbook rollout restart deployment/frontend
    check "all of them" kubectl_ -n guestbook rollout status --timeout 120s deployment/frontend
    check "entries are written and read" load_goes_on
    check "no write has failed" has_failed writes 0
    check "no read has failed since the follower's place was taken" has_failed reads "$before"
    in_pod elsewhere visitor touch /tmp/stop-reads
    step "The pods of the DaemonSet are replaced, one after the other: meanwhile their node has no vswitchd"
    check "kubectl rollout restart" kubectl_ -n vswitch-system rollout restart daemonset/vswitch
    check "kubectl rollout status" kubectl_ -n vswitch-system rollout status --timeout 180s daemonset/vswitch
    check "entries are written" writing_goes_on
    say "  $(failures writes) writes were tried again meanwhile"
    load_ends
    check "every entry that was acknowledged is there" wait_until 20 entries_are_there
    check "policies hold still" policies_hold
}

# failures reads|writes: how many there were.
failures() { in_pod elsewhere visitor cat "/tmp/failed-$1"; }

# has_failed reads|writes COUNT
has_failed() {
    local count
    count=$(failures "$1")
    [[ $count == "$2" ]] || { echo "$count instead of $2 failed" && tail -n 3 "$LAB_DIR/logs/load.log" && return 1; }
}

load_begins() {
    (in_pod elsewhere visitor load "http://$(service_address frontend)/cgi-bin/guestbook" \
        >"$LAB_DIR/acknowledged" 2>"$LAB_DIR/logs/load.log" || true) &
    load_pid=$!
    wait_until 10 done_beyond written 3 || die "The load does not begin to write"
    wait_until 10 done_beyond read 3 || die "The load does not begin to read"
}

# done_so_far written|read: how many requests went well.
done_so_far() { in_pod elsewhere visitor cat "/tmp/$1"; }

# done_beyond written|read COUNT
done_beyond() { (($(done_so_far "$1") > $2)); }

load_goes_on() { writing_goes_on && wait_until 20 done_beyond read "$(done_so_far read)"; }

writing_goes_on() { wait_until 20 done_beyond written "$(done_so_far written)"; }

load_ends() {
    in_pod elsewhere visitor touch /tmp/stop
    wait "$load_pid"
}

follower_dies() {
    local name
    name=$(kube_api GET '/api/v1/namespaces/guestbook/pods?labelSelector=role%3Dfollower' |
        jq -er '.items[0].metadata.name')
    kubectl_ -n guestbook delete pod "$name" --grace-period 0 --force --wait=false
}

# vswitchd_dies NODE: the process itself; its supervisor starts another.
vswitchd_dies() {
    local former
    former=$(cluster_daemon "$1")
    on_host "$1" kill -KILL "$former"
    wait_until 20 another_daemon "$1" "$former"
}

another_daemon() {
    local now
    now=$(cluster_daemon "$1") && [[ $now != "$2" ]] && on_host "$1" "$bin/vswitchctl" status
}


# An entry whose acknowledgement was lost is there twice.
entries_are_there() {
    page elsewhere visitor | grep '^entry-' | sort -u >"$LAB_DIR/entries"
    sort "$LAB_DIR/acknowledged" | cmp - "$LAB_DIR/entries"
}

policies_hold() { ! speaks_redis elsewhere visitor "$(service_address redis-leader)"; }

guestbook_accounts() {
    local node
    for node in node-a node-b; do check "$node accounts for every packet" cluster_accounts "$node"; done
}

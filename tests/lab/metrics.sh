#!/bin/bash
# Metrics for Prometheus, at an address and at a unix socket: promtool finds nothing to complain of, they move with
# what pods do, and a slow reader keeps nobody waiting but other readers, and those for a bounded time. The alerts
# and the board know no other names than are told.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/sync.sh
. "$root/scripts/lib/sync.sh"
# shellcheck source=scripts/lib/promtool.sh
. "$root/scripts/lib/promtool.sh"

readonly AT=127.0.0.1:9750

main() {
    setup_binaries
    promtool=$(promtool_setup) || die "promtool (Debian's prometheus) cannot be had: see $promtool_dir/log"
    lab_trap
    lab_create
    two_nodes_up vxlan
    daemons_with_metrics
    pod_plug node-a a1
    pod_plug node-a a2
    # One that is gone is in the sums.
    pod_plug node-a a3
    check "a pod reaches another" pings a3 "$(address a1 4)"
    pod_unplug node-a a3
    servers_up a1 a2
    read_by_both
    move_with_traffic
    services_if_asked_for
    slow_readers
    alerts
    socket_follows_the_daemon
    check "node-a accounts for every packet" accounts node-a
    report_end
}

# node-a has them at an address, node-b at a socket.
daemons_with_metrics() {
    printf '\n[metrics]\nlisten = "%s"\nservices = true\n' "$AT" >>"$(node_dir node-a)/vswitch.toml"
    printf '\n[metrics]\nlisten = "unix:%s"\n' "$(metrics_socket)" >>"$(node_dir node-b)/vswitch.toml"
    local node
    for node in node-a node-b; do
        lab_stop "vswitchd-$node"
        node_start "$node"
    done
}

metrics_socket() { printf '%s/metrics.sock' "$(node_dir node-b)"; }

# told: what node-a tells.
told() { in_ns node-a curl -sS --max-time 15 --fail "http://$AT/metrics"; }

# value LINE: the value of this series of node-a.
value() { told | awk -v series="$1" '{ value = $NF; sub(/ [^ ]*$/, ""); if ($0 == series) print value }'; }

read_by_both() {
    check "metrics are read from an address" told
    check "promtool finds nothing to complain of" lint
    check "they are read from a socket" curl -sS --max-time 15 --fail --unix-socket "$(metrics_socket)" http://node/metrics
    check "which is root's" test "$(stat -c %a "$(metrics_socket)")" = 600
    check_not "there is nothing at another path" in_ns node-a curl -sS --max-time 15 --fail "http://$AT/"
    check "the version is told" finds '^vswitch_build_info{node="node-a",version="[0-9.]*"} 1$' <<<"$(told)"
    check "and how many pods there are" test "$(value vswitch_pods)" = 2
}

lint() { told | "$promtool" check metrics; }

move_with_traffic() {
    local before after
    before=$(value 'vswitch_port_packets_total{direction="rx",kind="pod",namespace="demo",pod="a1"}')
    check "a pod fetches something" talks a1 a2 4
    after=$(value 'vswitch_port_packets_total{direction="rx",kind="pod",namespace="demo",pod="a1"}')
    check "its packets are counted" test "$after" -gt "$before"
    sync_policies node-a "$(rule_set nothing)" "$(subjects a2=nothing/)" >/dev/null
    check "a pod whose policies are not told is counted" wait_until 5 has vswitch_pods_pending 1
    sync_policies node-a "$(subjects a1=/)" >/dev/null
    check "until they are" wait_until 5 has vswitch_pods_pending 0
    check "how long ago policies were told is told" test "$(value 'vswitch_sync_age_seconds{of="policies"}')" -lt 60
    check_not "nobody has told of peers" grep -q 'sync_age_seconds{of="peers"}' <<<"$(told)"
    check_not "it is denied what another isolates" fetch a1 "$(address a2 4)" who
    check "the denials are counted, by pod" \
        test "$(value 'vswitch_drops_total{kind="pod",namespace="demo",pod="a1",reason="policy-denied"}')" -gt 0
    check "and by direction" test "$(value 'vswitch_policy_decisions_total{direction="ingress",verdict="denied"}')" -gt 0
    check "pod and node accounts agree" sums_agree
    check "with those of the pod that is gone" test "$(value 'vswitch_port_packets_total{direction="rx",kind="gone",namespace="",pod=""}')" -gt 0
    check "what packets took is counted by path" positive 'vswitch_latency_seconds_count{path="pod-pod"}'
    check "in seconds" positive 'vswitch_latency_seconds_sum{path="pod-pod"}'
    check "what takes longer than a bound is beyond it" bounds_rise
    check "changes were put in force" positive vswitch_change_apply_seconds_count
    check "the worker was busy" positive 'vswitch_worker_busy_seconds_total{worker="0"}'
    check "a pod's burst does not fit into a queue that nobody reads" burst
    check "which the kernel counts, and so is told" wait_until 5 positive \
        'vswitch_kernel_drops_total{kind="pod",namespace="demo",pod="a1",reason="interface-queue-full"}'
    check "promtool finds nothing to complain of in that" lint
}

# positive SERIES
positive() { value "$1" | awk '{ found = $1 > 0 } END { exit !found }'; }

# The buckets of a path do not fall, and the last has all.
bounds_rise() {
    told | awk '
        /^vswitch_latency_seconds_bucket{path="pod-pod"/ { falls += $NF < last; last = $NF; buckets++ }
        /^vswitch_latency_seconds_count{path="pod-pod"/ { all = $NF }
        END { exit !(buckets == 13 && !falls && last == all) }'
}

# Twenty packets at once while the daemon stands.
burst() {
    local daemon
    daemon=$(lab_pid vswitchd-node-a)
    in_ip a1 link set eth0 txqueuelen 2
    kill -STOP "$daemon"
    in_ns a1 ping -q -n -l 20 -c 20 -w 1 "$(address a2 4)" || true
    kill -CONT "$daemon"
    in_ip a1 link set eth0 txqueuelen 8192
}

# has SERIES VALUE
has() { [[ $(value "$1") == "$2" ]]; }

# Every packet that was received came from a port that is named, or from one that is gone.
sums_agree() {
    told | awk '
        /^vswitch_port_packets_total{direction="rx"/ { ports += $NF }
        /^vswitch_packets_total{fate="received"}/ { received = $NF }
        END { exit !(ports > 0 && received == ports) }'
}

# The series of a Service move with its connections, and end with it. node-b tells of none.
services_if_asked_for() {
    local at=198.19.0.7 series='vswitch_service_connections_total{namespace="demo",port="http",service="web"}' web
    web=$(service demo/web:http TCP "[\"$at\"]" "[{\"address\": \"$(address a1 4)\", \"port\": $SERVER_PORT}]")
    sync_services node-a "{\"complete\": false, \"services\": [$web], \"gone\": []}" >/dev/null
    check "a Service without connections has a series" has "$series" 0
    for _ in 1 2 3; do fetch a2 "$at" who >/dev/null; done
    check "each of its connections is counted once" has "$series" 3
    check "promtool finds nothing to complain of" lint
    sync_services node-a '{"complete": false, "services": [], "gone": ["demo/web:http"]}' >/dev/null
    check_not "the series ends with the Service" grep -q '^vswitch_service_connections_total' <<<"$(told)"
    sync_services node-b "{\"complete\": false, \"services\": [$web], \"gone\": []}" >/dev/null
    check_not "no Service has one where that is not asked for" grep -q service_connections_total \
        <<<"$(curl -sS --max-time 15 --fail --unix-socket "$(metrics_socket)" http://node/metrics)"
}

slow_readers() {
    local slow
    in_ns node-a timeout 30 /usr/bin/python3 - "$AT" <<'PYTHON' &
import socket, sys, time
address, port = sys.argv[1].split(":")
readers = [socket.create_connection((address, int(port))) for _ in range(2)]
while True:
    for reader in readers:
        try:
            reader.send(b"G")
        except OSError:
            pass
    time.sleep(0.2)
PYTHON
    slow=$!
    sleep 0.5
    check "beside readers that drip a pod is added at once" pod_plug node-a a3
    check "and metrics are told when their time is over" told
    kill "$slow" 2>/dev/null || true
    wait "$slow" 2>/dev/null || true
}

# names FILE: the metrics that it names, those of a histogram by the name of that.
names() { grep -oE 'vswitch_[a-z_]+' "$1" | sed 's/_seconds_\(bucket\|sum\|count\)$/_seconds/' | sort -u; }

alerts() {
    local known file
    # shellcheck disable=SC2016
    known=$(sed -n 's/^| `\(vswitch_[a-z_]*\)` .*/\1/p' "$root/docs/operations.md" | sort)
    check "the alerts are valid" "$promtool" check rules "$root/config/prometheus/vswitch.rules.yml"
    check "and go off as they are meant to" "$promtool" test rules "$root/tests/prometheus/rules.test.yml"
    check "the board is JSON" jq -e '.panels | length > 10' "$root/config/grafana/vswitch.json"
    for file in config/prometheus/vswitch.rules.yml config/grafana/vswitch.json; do
        check "$file names what the page has" test -z "$(comm -23 <(names "$root/$file") <(cat <<<"$known"))"
    done
}

socket_follows_the_daemon() {
    lab_signal vswitchd-node-b KILL
    wait_until 5 lab_gone vswitchd-node-b
    node_start node-b
    check "the next daemon has the socket of one that was killed" \
        curl -sS --max-time 15 --fail --unix-socket "$(metrics_socket)" http://node/metrics
    lab_stop vswitchd-node-b
    check_not "one that ends takes it away" test -e "$(metrics_socket)"
}

main "$@"

# shellcheck shell=bash
# `scripts/bench scale`: a node with 100,000 routes of the kernel's and 10,000 peers; how long until
# it forwards by them, what memory they take, and for how long a packet between two pods of the node
# waits at worst meanwhile. Beside it a kernel bridge whose kernel takes the same routes. Sourced
# after nodes.sh by scripts/bench.
#
# The worker has one CPU of its own. Both flows, the routes' writer, the plugin and the daemon's
# control thread share the others. Flows and worker run under SCHED_FIFO, as the kernel forwards in the
# context of whoever sends: what else the machine has to do is not what is measured. So that the rest
# of that CPU's processes are not starved, which the kernel would end by stopping the worker for 50 ms
# a second, it sleeps as soon as there is no packet.

readonly SCALE_PER_SECOND=20000 SCALE_PORT=4900
readonly SCALE_PEERS=10000
# /32 in the upper part of the cluster prefix, above the peers' and the node's; /64 beside the pods'.
readonly SCALE_ROUTES4=40000 SCALE_ROUTES6=60000

# bench_scale ROUNDS SCHEDULING: fifo, or default for the worker as it is started.
bench_scale() {
    local rounds=$1 scheduling=$2 round
    setup_packages build lab
    setup_binaries
    command -v taskset >/dev/null || die "taskset (util-linux) is needed"
    worker_cpu=$(allowed_cpu 0)
    all_cpus=$(taskset -pc $$ | sed 's/.*: //')
    other_cpus=$(/usr/bin/python3 -c 'import os, sys
print(",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)) if cpu != int(sys.argv[1])))' "$worker_cpu")
    [[ -n $other_cpus ]] || die "Two CPUs are needed: one is the worker's"
    taskset -pc "$other_cpus" $$ >/dev/null
    lab_trap
    for ((round = 1; round <= rounds; round++)); do
        scale_round "$round"
    done
}

scale_round() {
    local steps flow kernel_flow
    lab_create
    steps=$LAB_DIR/steps flow=$LAB_DIR/flow kernel_flow=$LAB_DIR/kernel-flow
    scale_up
    scale_flow_start "" p1 p2 "$(address p2 4)" "$flow"
    scale_flow_start kernel- q1 q2 198.18.0.2 "$kernel_flow"
    sleep 1
    local quiet=$((SCALE_ROUTES4 + SCALE_ROUTES6)) batch=$LAB_DIR/routes
    scale_routes node-a >"$batch"
    scale_routes kernel >"$batch.kernel"
    scale_kernel "kernel: nothing" sleep 1
    scale_kernel "kernel: $quiet routes" ip -n "$(ns kernel)" -batch "$batch.kernel"
    scale_kernel "kernel: one more route" ip -n "$(ns kernel)" route add 198.18.2.1 via 198.51.100.2
    scale_kernel "kernel: link down" ip -n "$(ns kernel)" link set eth0 down
    # As long as all that follows takes: what the machine does by itself happens then too.
    scale_step "nothing" answered sleep 15
    scale_step "$quiet routes of the kernel" "routes=$quiet" ip -n "$(ns node-a)" -batch "$batch"
    scale_step "one more route" "routes=$((quiet + 1))" \
        ip -n "$(ns node-a)" route add 198.18.2.1 via 198.51.100.2
    scale_step "$SCALE_PEERS peers" "peers=$SCALE_PEERS" sync "$SCALE_PEERS" 0
    scale_step "one peer changed" "peers=$SCALE_PEERS" sync "$SCALE_PEERS" 1
    scale_step "the same peers again" answered sync "$SCALE_PEERS" 1
    scale_step "one more route, with peers" "routes=$quiet" \
        ip -n "$(ns node-a)" route del 198.18.2.1
    lab_add_ns p3
    scale_step "CNI ADD of a pod" answered "$(scale_cni ADD p3)"
    scale_step "CNI DEL of a pod" answered "$(scale_cni DEL p3)"
    scale_step "link down" "routes<$((quiet / 2))" ip -n "$(ns node-a)" link set eth0 down
    scale_step "link up" answered ip -n "$(ns node-a)" link set eth0 up
    local process
    for process in kernel-send kernel-receive send receive; do lab_stop "$process"; done
    scale_placement "$1"
    /usr/bin/python3 "$root/scripts/lib/bench/scale_step.py" report "$steps" "$flow" "$kernel_flow"
    lab_down
}

scale_placement() {
    printf '\nRound %s: %s\n' "$1" "$(machine_line)"
    cat <<TEXT
Worker on CPU $worker_cpu, scheduling $scheduling; flows, writer of the routes and control thread on CPU $other_cpus. $SCALE_PER_SECOND datagrams
a second each way measured. turn: the worker's own longest turn with packets; kept off: time that it
was ready to run and did not; worst: the longest that a datagram was under way; >1 ms: how often one,
or several in a row, took longer than that; bridge: the longest at the kernel's bridge, at the same time.
TEXT
}

# The node with two pods, and a kernel with as many behind a bridge.
scale_up() {
    underlay_up
    underlay_attach_node node-a
    in_ip router address add 198.51.100.2/25 dev lan-a
    in_ip router address add 198.51.100.3/25 dev lan-a
    in_ip router -6 address add fe80::2/64 dev lan-a
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    {
        node_config node-a vxlan | sed "s/^cores = .*/cores = [$worker_cpu]/"
        printf '\n[routes.kernel]\n'
    } >"$(node_dir node-a)/vswitch.toml"
    [[ $scheduling != fifo ]] ||
        sed -i '/^\[workers\]/a idle_after_us = 0' "$(node_dir node-a)/vswitch.toml"
    VSWITCHD_UNDER=(taskset -c "$all_cpus")
    node_start node-a || exit 1
    if [[ $scheduling == fifo ]]; then
        scale_fifo "$(lab_pid vswitchd-node-a)"
        # Whatever runs on the worker's CPU, it has it at once; but a virtual CPU that idles is given
        # back to its host, and may be long in coming when a packet does.
        lab_spawn awake node-a taskset -c "$worker_cpu" nice -n -20 \
            timeout 300 sh -c 'while :; do :; done'
    fi
    pod_plug node-a p1
    pod_plug node-a p2

    lab_add_ns kernel
    in_ns kernel sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    in_ip kernel link add eth0 type veth peer name to-kernel netns "$(ns router)"
    in_ip kernel link add vsw0 type veth peer name behind-vsw0
    in_ip router link set to-kernel master lan-a up
    in_ip kernel address add 198.51.100.20/25 dev eth0
    in_ip kernel address add 198.18.1.1/24 dev vsw0
    local link pod
    for link in eth0 vsw0 behind-vsw0; do in_ip kernel link set "$link" up; done
    in_ip kernel link add pods type bridge mcast_snooping 0
    in_ip kernel link set pods up
    for pod in 1 2; do
        lab_add_ns "q$pod"
        in_ip kernel link add "q$pod" type veth peer name eth0 netns "$(ns "q$pod")"
        in_ip kernel link set "q$pod" master pods up
        in_ip "q$pod" address add "198.18.0.$pod/24" dev eth0
        in_ip "q$pod" link set eth0 up
    done
}

# scale_fifo PID: its first worker.
scale_fifo() {
    local task
    for task in "/proc/$1/task/"*; do
        [[ $(cat "$task/comm") != worker-0 ]] || chrt -f -p 12 "$(basename "$task")"
    done
}

# scale_flow_start PREFIX FROM TO ADDRESS FILE
scale_flow_start() {
    local program=$root/scripts/lib/bench/scale_flow.py
    lab_spawn "$1receive" "$3" taskset -c "$other_cpus" \
        /usr/bin/python3 "$program" receive "$4" "$SCALE_PORT" "$5"
    lab_spawn "$1send" "$2" taskset -c "$other_cpus" \
        /usr/bin/python3 "$program" send "$4" "$SCALE_PORT" "$SCALE_PER_SECOND"
}

# scale_routes: for `ip -batch`, by four next hops a family, a fourth of IPv4's through the overlay.
scale_routes() {
    awk -v count4="$SCALE_ROUTES4" -v count6="$SCALE_ROUTES6" 'BEGIN {
        split("via 198.51.100.1|via 198.51.100.2|via 198.51.100.3|via 203.0.113.12 dev vsw0 onlink", hops, "|")
        for (i = 0; i < count4; i++)
            printf "route add 198.18.%d.%d/32 %s\n", 96 + int(i / 256), i % 256, hops[1 + i % 4]
        for (i = 0; i < count6; i++)
            printf "route add fd00:18:2000:%x::/64 via fe80::2 dev eth0\n", i
    }'
}

# scale_cni COMMAND POD: makes an executable that does this and nothing else, and prints its path.
scale_cni() {
    local file=$LAB_DIR/cni-$1
    plugin_config node-a >"$file.json"
    cat >"$file" <<SH
#!/bin/sh
CNI_COMMAND=$1 CNI_CONTAINERID=$(ns "$2") CNI_NETNS=/run/netns/$(ns "$2") CNI_IFNAME=eth0 CNI_PATH=$bin \
    exec nsenter --net=/run/netns/$(ns node-a) -- $bin/vswitch-cni <$file.json
SH
    chmod +x "$file"
    printf '%s' "$file"
}

# scale_step NAME CONDITION COMMAND…
scale_step() {
    local name=$1 condition=$2
    shift 2
    /usr/bin/python3 "$root/scripts/lib/bench/scale_step.py" step "$steps" "$name" \
        "$(lab_pid vswitchd-node-a)" "$(node_socket node-a)" "$condition" "$@"
}

scale_kernel() {
    local name=$1
    shift
    /usr/bin/python3 "$root/scripts/lib/bench/scale_step.py" kernel "$steps" "$name" "$@"
}

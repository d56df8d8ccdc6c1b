# shellcheck shell=bash
# `scripts/demo cluster`: three nodes in two subnets that know one another by BIRD alone. While a
# file is being transferred between two of them, the third joins and dies. Sourced after bgp.sh.

# The transfer is paced for longer than all that happens meanwhile.
readonly TRANSFER_SECONDS=45 TRANSFER_RATE=1000000
readonly TRANSFER_TIMES=50

demo_cluster() {
    local keep=$1 before=$failed node transfer
    heading "══ cluster ══"
    setup_packages bgp
    lab_create
    cluster_of_two
    cluster_transfer_begins
    cluster_joins
    cluster_shows_routes
    cluster_dies
    cluster_transfer_ends
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
    if [[ -n $keep ]]; then
        say "The lab stands: scripts/lab --id $LAB_ID exec a1 ping $(address b1 4)"
        say "To remove it: scripts/lab --id $LAB_ID down"
        LAB_DIR=
        return 0
    fi
    ((failed == before)) || lab_keep_logs
    lab_down
}

cluster_of_two() {
    local node
    step "Two subnets behind a router, node-a and node-b, a vswitchd and BIRD on each, no peers
  configured: BIRD tells the kernel, vswitchd reads the kernel"
    bgp_underlay_up
    for node in node-a node-b; do
        bgp_node "$node"
        pod_plug "$node" "${node#node-}1"
    done
    servers_up a1 b1
    bird_up node-a node-b node-d
    bird_up node-b node-a node-d
    everyone_learns node-a node-b
    check "a1 reaches b1" follows a1 b1
}

# The file, many times over, by one connection.
cluster_transfer_begins() {
    step "A transfer of about $TRANSFER_SECONDS seconds from b1 to a1 begins"
    in_ns a1 /usr/bin/python3 "$root/scripts/lib/paced_transfer.py" "$(address b1 4)" \
        "$SERVER_PORT" "blob/$TRANSFER_TIMES" "$TRANSFER_RATE" "$TRANSFER_SECONDS" \
        >"$LAB_DIR/transfer" 2>"$LAB_DIR/logs/transfer.log" &
    transfer=$!
}

cluster_joins() {
    heading "node-d joins, in node-a's subnet"
    bgp_node node-d
    pod_plug node-d d1
    servers_up d1
    bird_up node-d node-a node-b
    everyone_learns node-a node-b node-d
    check "a1 reaches d1 within a second of the kernel's route" follows a1 d1
    check "b1 reaches d1" follows b1 d1
    everyone_talks a1 b1 d1
}

cluster_shows_routes() {
    heading "node-a's routes, and where they come from: unencapsulated on its own link, VXLAN to the
other subnet"
    ctl node-a show fib | sed 's/^/    /'
}

cluster_dies() {
    heading "node-d dies without a word"
    kill -KILL "$(lab_pid bird-node-d)" "$(lab_pid vswitchd-node-d)"
    in_ip router link set to-node-d down
    check "BIRD's hold time ends, and the kernel's route goes" \
        wait_until "$PROTOCOL_SECONDS" kernel_lacks node-a node-d
    check "a1 is told within a second that d1 is unreachable" \
        wait_until "$FOLLOWS_SECONDS" is_told_unreachable a1 d1
}

cluster_transfer_ends() {
    local times=$TRANSFER_TIMES wanted bytes sum gap code=0
    heading "The transfer"
    check "ran all the while" kill -0 "$transfer"
    wait "$transfer" || code=$?
    read -r bytes sum gap <"$LAB_DIR/transfer" || true
    wanted=$(for _ in $(seq "$times"); do cat "$LAB_DIR/blob"; done | sha256sum | cut -d' ' -f1)
    check "arrived whole: ${bytes:-no} bytes" test "$code:${sum:-}" = "0:$wanted"
    check "never waited for as long as a second: ${gap:-?} ms at most" test "${gap:-1000}" -lt 1000
}

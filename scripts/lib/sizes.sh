# shellcheck shell=bash
# Packets of every size, from one byte of content to 200 bytes more than the way takes, by UDP, ICMP
# and TCP, of IPv4 and IPv6: each arrives, or its sender hears the length that passes. Sourced after
# checks.sh.

readonly SIZES_PORT=9000 SIZES_BEYOND=200

# sinks_up NAME…: what takes packets, for each family.
sinks_up() {
    local pod family
    for pod in "$@"; do
        for family in 4 6; do
            lab_spawn "sink$family-$pod" "$pod" /usr/bin/python3 "$root/tests/lab/size_sweep.py" \
                serve "$(address "$pod" "$family")" "$SIZES_PORT"
            wait_until 10 sink_listens "$pod" "$family" || die "The sink in $pod does not listen"
        done
    done
}

sink_listens() {
    [[ -n $(in_ns "$1" ss -Hltn "-$2" "sport = :$((SIZES_PORT + 1))") ]]
}

# widen NAME INTERFACE: the interface takes what the way does not, or nothing too long would leave it.
# vswitchd gives the host port its MTU again, until another program has insisted three times: that then
# has its way for a minute.
widen() {
    local _
    for _ in {1..8}; do
        in_ip "$1" link set "$2" mtu 2000
        sleep 0.7
        if in_ip "$1" -json link show dev "$2" | jq -e '.[0].mtu == 2000' >/dev/null; then return; fi
    done
    return 1
}

# sweeps FROM TO WAY_MTU: both families at once.
sweeps() {
    local family pids=()
    for family in 4 6; do
        in_ns "$1" /usr/bin/python3 "$root/tests/lab/size_sweep.py" send "$(address "$1" "$family")" \
            "$(address "$2" "$family")" "$SIZES_PORT" "$(($3 + SIZES_BEYOND))" "$3" \
            >"$LAB_DIR/logs/sweep$family-$1-$2.log" 2>&1 &
        pids[family]=$!
    done
    for family in 4 6; do
        wait "${pids[family]}" || true
        check "$1 to $2, IPv$family, up to $(($3 + SIZES_BEYOND)) bytes where $3 pass" \
            says_nothing "$LAB_DIR/logs/sweep$family-$1-$2.log"
    done
}

# says_nothing LOG: what is wrong would be in it.
says_nothing() {
    cat "$1"
    [[ ! -s $1 ]]
}

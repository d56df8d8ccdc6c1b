# shellcheck shell=bash
# A run of the node's benchmarks: rounds in which each side is measured after the other, so that what else
# the machine does meets all of them alike. Sourced after nodes.sh by scripts/bench.
#
# Enters: rows, as scripts/lib/bench/table.py names them. Leaves: target/bench/samples, a line for each
# figure; target/bench/summary.json; the same as a table. Needs two CPUs: the worker has the first.

# Set by bench_node: rounds, seconds of each load, what nice adds to daemon and loads.
bench_rounds=5 bench_seconds=3
readonly BENCH_NICE=-15
bench_dir=${CARGO_TARGET_DIR:-$root/target}/bench
worker_cpu='' other_cpu='' load=

# The groups of rows that are measured in a lab of their own, and the rows in each.
readonly BENCH_GROUPS=(policies services)
declare -rA BENCH_ROWS=([policies]='B11 B12' [services]='B21 B22')

# bench_node ROW…: all rows if none is named.
bench_node() {
    local group row wanted=("$@")
    for row in "${wanted[@]}"; do
        [[ " ${BENCH_ROWS[*]} " == *" $row "* ]] || die "No row is named $row; there are: ${BENCH_ROWS[*]}"
    done
    ((${#wanted[@]})) || read -ra wanted <<<"${BENCH_ROWS[*]}"
    setup_packages build lab
    setup_binaries
    setup_load
    [[ -z $(lab_lacks) ]] || die "This machine lacks for a lab: $(lab_lacks)"
    (($(nproc) >= 2)) || die "Two CPUs are needed: one is the worker's"
    worker_cpu=$(allowed_cpu 0) other_cpu=$(allowed_cpu 1)
    mkdir -p "$bench_dir"
    : >"$bench_dir/samples"
    renice -n "$BENCH_NICE" -p $$ >/dev/null
    bench_conditions
    lab_trap
    for group in "${BENCH_GROUPS[@]}"; do
        for row in ${BENCH_ROWS[$group]}; do
            [[ " ${wanted[*]} " == *" $row "* ]] || continue
            # Once for all of its rows that are wanted.
            lab_create
            "bench_$group" "${wanted[@]}"
            lab_down
            break
        done
    done
    progress_clear
    bench_conditions
    /usr/bin/python3 "$root/scripts/lib/bench/table.py" "$bench_dir/samples" "$bench_dir/summary.json"
    say "Figures are kept in $bench_dir"
}

# setup_load: the program that makes the traffic.
setup_load() {
    load=${CARGO_TARGET_DIR:-$root/target}/release/vswitch-load
    setup_rust
    build_release vswitch-load
}

bench_conditions() {
    printf '\n%s; other programs use %s CPUs\n' "$(machine_line)" "$(foreign_cpus)"
    printf 'Worker on CPU %s; clients on CPU %s; %s rounds of %s s; the kernel forwards in the sender'\''s context\n\n' \
        "$worker_cpu" "$other_cpu" "$bench_rounds" "$bench_seconds"
}

# sample MEASUREMENT SIDE VALUE
sample() {
    jq -cn --arg measurement "$1" --arg side "$2" --argjson value "$3" '{$measurement, $side, $value}' >>"$bench_dir/samples"
}

# bench_measure MEASUREMENT FUNCTION SIDE…: in each round FUNCTION SIDE prints the figure of each.
bench_measure() {
    local measurement=$1 function=$2 round side value
    shift 2
    for ((round = 1; round <= bench_rounds; round++)); do
        for side in "$@"; do
            progress "$measurement: $side, round $round of $bench_rounds"
            value=$("$function" "$side") || die "$measurement was not measured with $side"
            sample "$measurement" "$side" "$value"
        done
    done
}

# bench_pinned CPU POD COMMAND…: in the pod's namespace.
bench_pinned() {
    local cpu=$1 pod=$2
    shift 2
    in_ns "$pod" taskset -c "$cpu" "$@"
}

# received POD: frames that its interface has had.
received() { in_ip "$1" -json -stats link show dev eth0 | jq '.[0].stats64.rx.packets'; }

# shellcheck shell=bash
# A run of the node's benchmarks: rounds in which each side is measured after the other, so that what else
# the machine does meets all of them alike. Sourced after nodes.sh by scripts/bench.
#
# Enters: rows, as scripts/lib/bench/rows.py names them. Leaves: target/bench/samples, a line for each
# figure; target/bench/summary.json and chart.svg; the same as a table. Needs two CPUs: the worker has the first.

# Set by bench_node: rounds, seconds of each load, what nice adds to daemon and loads.
bench_rounds=5 bench_seconds=3
readonly BENCH_NICE=-15
# In how many microseconds a NIC of the lab interrupts once; 0: for each frame that finds it idle.
bench_interrupts_us=20
# A figure during which other programs had more of the machine's CPU time than that is measured again, until
# it was measured so often; then it counts, and is told as noisy.
readonly BENCH_FOREIGN=0.05
bench_tries=3
bench_dir=${CARGO_TARGET_DIR:-$root/target}/bench
worker_cpu='' other_cpu='' load=
# The rows of this run, each between blanks; what was left out of it, and why.
bench_rows='' bench_left_out=()

# The groups of rows that are measured in a lab of their own, and the rows in each.
readonly BENCH_GROUPS=(same_node tunnels many_pods routes policies services)
declare -rA BENCH_ROWS=(
    [same_node]='B1 B2 B3 B4 B8 B9 B13 B14 B15 B16 B23'
    [tunnels]='B5 B6 B7 B24 B25'
    [many_pods]='B17 B18 B20'
    [routes]='B10 B19'
    [policies]='B11 B12'
    [services]='B21 B22'
)

# bench_node ROW…: all rows if none is named.
bench_node() {
    local group row
    for row in "$@"; do
        [[ " ${BENCH_ROWS[*]} " == *" $row "* ]] || die "No row is named $row; there are: ${BENCH_ROWS[*]}"
    done
    bench_rows=" $* "
    (($#)) || bench_rows=" ${BENCH_ROWS[*]} "
    setup_packages build lab
    ! wants B3 B4 B9 B17 B20 || setup_packages ovs
    setup_binaries
    setup_load
    [[ -z $(lab_lacks) ]] || die "This machine lacks for a lab: $(lab_lacks)"
    (($(nproc) >= 2)) || die "Two CPUs are needed: one is the worker's"
    worker_cpu=$(allowed_cpu 0) other_cpu=$(allowed_cpu 1)
    mkdir -p "$bench_dir"
    : >"$bench_dir/samples"
    renice -n "$BENCH_NICE" -p $$ >/dev/null
    lab_nice "$BENCH_NICE"
    bench_conditions
    lab_trap
    for group in "${BENCH_GROUPS[@]}"; do
        # shellcheck disable=SC2086
        wants ${BENCH_ROWS[$group]} || continue
        lab_create
        "bench_$group"
        lab_down
    done
    progress_clear
    bench_conditions
    bench_table
    say "Figures are kept in $bench_dir"
    list_failures
    ((failed == 0))
}

# wants ROW…: whether one of them is to be measured.
wants() {
    local row
    for row in "$@"; do [[ $bench_rows != *" $row "* ]] || return 0; done
    return 1
}

# setup_load: the program that makes the traffic, from VSWITCH_BIN if it is there.
setup_load() {
    load=${VSWITCH_BIN:-}/vswitch-load
    [[ -z ${VSWITCH_BIN:-} || ! -x $load ]] || return 0
    load=${CARGO_TARGET_DIR:-$root/target}/release/vswitch-load
    setup_rust
    build_release vswitch-load
}

bench_conditions() {
    printf '\n%s; other programs use %s CPUs\n' "$(machine_line)" "$(foreign_cpus)"
    printf 'Worker on CPU %s; clients on CPU %s unless a row tells otherwise; %s rounds of %s s; the kernel forwards in the sender'\''s context\n\n' \
        "$worker_cpu" "$other_cpu" "$bench_rounds" "$bench_seconds"
}

bench_table() {
    local reason
    bench_python table "$bench_dir/samples" "$bench_dir/summary.json" "$worker_cpu" "$other_cpu" "$bench_interrupts_us"
    bench_python chart "$bench_dir/summary.json" "$bench_dir/chart.svg"
    for reason in "${bench_left_out[@]}"; do skip "${reason%%:*}" "${reason#*: }"; done
}

# leave_out ROW REASON
leave_out() { bench_left_out+=("$1: $2"); }

# bench_python PROGRAM ARGUMENTS…: of this directory. Bytes of its own are not left in the tree.
bench_python() { PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$root/scripts/lib/bench/$1.py" "${@:2}"; }

# sample MEASUREMENT SIDE FIGURES: figures are an object, which has `sides` if they are of several.
sample() {
    jq -cn --arg measurement "$1" --arg side "$2" --argjson figures "$3" '$figures
        | ((.sides // {($side): {}}) | to_entries[]) as $each
        | {$measurement, side: $each.key} + del(.sides) + $each.value' >>"$bench_dir/samples"
}

# bench_measure MEASUREMENT FUNCTION SIDE…: in each round FUNCTION SIDE prints the figures of each. One that
# fails twice costs the run its figure, and its success.
bench_measure() {
    local measurement=$1 function=$2 round side figures
    shift 2
    for ((round = 1; round <= bench_rounds; round++)); do
        for side in "$@"; do
            progress "$measurement: $side, round $round of $bench_rounds"
            if bench_quietly "$function" "$side"; then
                sample "$measurement" "$side" "$figures"
            else
                progress_clear
                fail "$measurement with $side, round $round"
                lab_keep_logs
            fi
        done
    done
}

# bench_quietly FUNCTION SIDE: sets `figures`, with what the meter tells of the time in which they were measured.
# Of several tries it keeps the one that other programs disturbed least. One may fail, as by a SYN that was lost.
bench_quietly() {
    local try told value least='' fruitless=0
    for ((try = 1; try <= bench_tries; try++)); do
        bench_python meter begin "$LAB_DIR/meter" $$
        if ! value=$("$1" "$2") || [[ -z $value ]]; then
            ((fruitless++ == 0)) || return 1
            try=$((try - 1))
            continue
        fi
        told=$(bench_python meter end "$LAB_DIR/meter" $$ "$LAB_DIR/pids")
        value=$(jq -cn --argjson value "$value" --argjson told "$told" --argjson most "$BENCH_FOREIGN" \
            '$told + ($value | if type == "object" then . else {value: .} end) + {noisy: ($told.foreign > $most)}')
        if [[ -z $least ]] || jq -en "$value.foreign < $least" >/dev/null; then
            figures=$value least=$(jq .foreign <<<"$value")
        fi
        jq -e .noisy <<<"$figures" >/dev/null || return 0
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

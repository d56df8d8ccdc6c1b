# shellcheck shell=bash
# `scripts/bench core`: the criterion benchmarks in benches/, in one table with their goals. Sourced after
# all.sh by scripts/bench.

# Goals in nanoseconds a packet: 1,000 pods, 10,000 flows, batches of 32, no I/O.
core_goal() {
    case $1 in
        forward/l2-known-unicast) echo 25 ;;
        forward/l3-1m-routes) echo 40 ;;
        encap/vxlan-v4 | decap/vxlan-v4) echo 50 ;;
    esac
}

# bench_core [--quick] [--rounds N] [--show] [FILTER]
bench_core() {
    local rounds=3 timing=(--warm-up-time 1 --measurement-time 2) filter=() show=''
    while (($#)); do
        case $1 in
            --quick)
                rounds=1
                timing=(--warm-up-time 0.2 --measurement-time 0.4 --sample-size 20)
                ;;
            --rounds)
                [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--rounds takes a number above zero"
                rounds=$2
                shift
                ;;
            --show) show=yes ;;
            -h | --help) usage && exit 0 ;;
            -*) usage >&2 && exit 2 ;;
            *) filter=("$1") ;;
        esac
        shift
    done
    cd "$root"
    target=${CARGO_TARGET_DIR:-$root/target}
    medians=$target/criterion/medians
    if [[ -z $show ]]; then
        setup_packages build
        setup_rust
        core_measure "$rounds" "${timing[@]}" "${filter[@]}"
    fi
    [[ -s $medians ]] || die "Nothing was measured${filter[0]:+: no benchmark has ${filter[0]} in its name}"
    core_machine
    core_table
}

# core_measure ROUNDS OPTION…: leaves one line for each benchmark and round in $medians.
core_measure() {
    local rounds=$1 round estimates
    shift
    step "Building the benchmarks in release mode (minutes, the first time)"
    cargo bench --quiet --locked -p vswitch-benches --no-run
    # Other benchmarks of an earlier run are not this one's.
    rm -rf "$target/criterion"
    mkdir -p "$target/criterion"
    for ((round = 1; round <= rounds; round++)); do
        step "Round $round of $rounds (load $(cut -d' ' -f1-3 /proc/loadavg))"
        cargo bench --quiet --locked -p vswitch-benches --bench wire --bench tables --bench encap \
            --bench forward --bench session --bench policy -- --noplot "$@" >"$target/criterion/round-$round.log" 2>&1 ||
            die "A benchmark failed; see $target/criterion/round-$round.log"
        for estimates in "$target"/criterion/*/*/new/estimates.json; do
            [[ -f $estimates ]] && core_figure "${estimates%/estimates.json}"
        done >>"$medians"
    done
}

# core_figure DIRECTORY: name, nanoseconds an iteration, packets and bytes in one.
core_figure() {
    local name median elements bytes
    name=$(core_field 'full_id":"([^"]*)' "$1/benchmark.json")
    median=$(core_field 'median":\{"confidence_interval":\{[^}]*\},"point_estimate":([0-9.eE+-]+)' \
        "$1/estimates.json")
    elements=$(core_field '[Ee]lements":([0-9]+)' "$1/benchmark.json")
    bytes=$(core_field '[Bb]ytes(Decimal)?":([0-9]+)' "$1/benchmark.json" 2)
    printf '%s %s %s %s\n' "$name" "$median" "${elements:-1}" "${bytes:-0}"
}

# core_field PATTERN FILE [GROUP]: criterion writes each file as one line.
core_field() { sed -nE "s/.*\"$1.*/\\${3:-1}/p" "$2"; }

core_machine() {
    printf '\n%s\n' "$(machine_line)"
    cat <<'TEXT'
Time in the pure core for a packet (for a header, a lookup, a piece of a superframe); the copy from
the ring is forward/receive and not part of the others. Smallest of the rounds' medians; "spread" is
how far the largest lies above it. On a shared or virtual machine ten per cent are noise.
TEXT
}

core_table() {
    printf '\n%-38s %10s %8s %12s %10s %6s  %s\n' benchmark ns spread packets/s GB/s goal stands
    local name median elements bytes largest goal
    while read -r name median largest elements bytes; do
        goal=$(core_goal "$name")
        awk -v name="$name" -v median="$median" -v largest="$largest" -v elements="$elements" \
            -v bytes="$bytes" -v goal="$goal" 'BEGIN {
            ns = median / elements
            stands = ""
            if (goal != "") stands = ns <= goal ? "ok" : sprintf("missed, %.1f times", ns / goal)
            printf "%-38s %10.1f %7.0f%% %10.2f M %10s %6s  %s\n", name, ns,
                (largest / median - 1) * 100, 1000 / ns,
                (bytes > 0 ? sprintf("%.2f", bytes / median) : "-"), (goal == "" ? "-" : goal),
                stands
        }'
    done < <(awk '{
        if (!($1 in least) || $2 < least[$1]) least[$1] = $2
        if ($2 > most[$1]) most[$1] = $2
        size[$1] = $3 " " $4
    } END { for (name in least) print name, least[name], most[name], size[name] }' "$medians" | sort)
}

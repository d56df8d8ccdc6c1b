# shellcheck shell=bash
# What a figure depends on besides what is measured: the machine, and what else it does. Sourced by all.sh.

# machine_line: processor, CPUs, kernel and load.
machine_line() {
    printf '%s, %s CPUs, kernel %s, load %s' \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" \
        "$(cut -d' ' -f1-3 /proc/loadavg)"
}

# foreign_cpus: how many CPUs are busy for two seconds in which nothing of ours runs.
foreign_cpus() {
    local before after
    before=$(head -n 1 /proc/stat)
    sleep 2
    after=$(head -n 1 /proc/stat)
    awk -v cpus="$(nproc)" 'NR == 1 { for (i = 2; i <= 9; i++) was[i] = $i }
        NR == 2 {
            for (i = 2; i <= 9; i++) { total += $i - was[i]; if (i == 5 || i == 6) idle += $i - was[i] }
            printf "%.1f", cpus * (total - idle) / total
        }' <<<"$before"$'\n'"$after"
}

#!/bin/bash
# A worker's core that another program uses: `status` tells the share that it takes, and warns of a worker that is kept
# off its core.
# alone: it keeps a core busy
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    underlay_attach_node node-a
    mkdir -p "$(node_dir node-a)/state" "$(node_dir node-a)/pods"
    # A worker that never sleeps wants all of its core.
    node_config node-a vxlan | sed 's/^cores = .*/&\nidle_after_us = "never"/' >"$(node_dir node-a)/vswitch.toml"
    check "vswitchd starts with a worker that spins" node_start node-a
    core=$(ctl node-a status --json | jq '.workers[0].core')
    lab_spawn burner node-a taskset -c "$core" sh -c 'while :; do :; done'
    check "another program on its core shows, and keeps the worker off it" wait_until 30 shared
    check "the worker is named" wait_until 10 warned
    check "with the core, and with what to do" told
    check "the table has it" finds "OTHERS  *WAITED" <<<"$(ctl node-a status)"
    report_end
}

# The scheduler halves the core, other work on the machine aside.
shared() {
    ctl node-a status --json | jq -e '
        .workers[0].core_share | .seconds >= 1 and .others_percent >= 25 and .waited_percent >= 25'
}

warned() { ctl node-a status --json | jq -e 'any(.warnings[]; startswith("worker 0 waited for core "))'; }

told() {
    ctl node-a status --json |
        jq -e --arg core "core $core in" 'any(.warnings[]; contains($core) and contains("workers.cores"))'
}

main "$@"

# shellcheck shell=bash
# Runs a scenario over the uplink of kind `offload`. Needs `root`.

# shellcheck source=scripts/lib/all.sh
. "${root:?the sourcing script sets it to the repository}/scripts/lib/all.sh"

# over_offload SCRIPT [ARGUMENT…]: in its place, with its counts; skipped where the kernel lacks it.
over_offload() {
    local lacks
    lacks=$(offload_uplink_lacks)
    if [[ -z $lacks ]]; then
        VSWITCH_UPLINK=offload exec "$@"
    fi
    skip "$(basename "$0" .sh)" "this machine lacks $lacks"
    report_end
}

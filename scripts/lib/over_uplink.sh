# shellcheck shell=bash
# Runs a scenario over a kind of uplink that is not the default. Needs `root`.

# shellcheck source=scripts/lib/all.sh
. "${root:?the sourcing script sets it to the repository}/scripts/lib/all.sh"

# over_uplink KIND SCRIPT [ARGUMENT…]: in its place, with its counts; skipped where the kernel lacks the kind.
over_uplink() {
    local kind=$1 lacks
    shift
    lacks=$(uplink_lacks "$kind")
    if [[ -z $lacks ]]; then
        VSWITCH_UPLINK=$kind exec "$@"
    fi
    skip "$(basename "$0" .sh)" "this machine lacks $lacks"
    report_end
}

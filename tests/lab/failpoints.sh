#!/bin/bash
# Every fault at every place of failpoint::PLACES, in the plugin, the daemon and the supervisor: after one DEL
# nothing is left of a pod; over starts, stops and hand-overs of descriptors the pods stay as they are; a first
# start that fails, and a drain, leave nothing of the node's.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PLACES=$root/vswitch/failpoint/src/places.rs

main() {
    lab_trap
    lab_create
    setup_failpoint_binaries
    heading "Each fault in the first start of a node"
    cases firsts "$@"
    heading "Each fault in an ADD or a DEL, then one DEL"
    cases pods "$@"
    heading "Each fault in a start, a stop, or a hand-over of descriptors"
    cases restarts "$@"
    heading "Each fault in a drain, then one more drain"
    cases drains "$@"
    report_end
}

# Those of the other lab tests are as they are used, without failpoints. The daemon and the plugin are built as
# the tests of the workspace are, so that nothing is built twice, rather than in release mode.
setup_failpoint_binaries() {
    setup_binaries
    ! have_failpoints || return 0
    setup_rust
    step "Building the daemon and the plugin with failpoints"
    (cd "$root" && cargo test --quiet --no-run --locked --workspace --features vswitchd/failpoints) ||
        die "The build failed; the messages above say where"
    mkdir "$LAB_DIR/bin"
    ln -s "$(realpath "$bin/vswitchctl")" "${CARGO_TARGET_DIR:-$root/target}"/debug/{vswitchd,vswitch-cni} "$LAB_DIR/bin"
    bin=$LAB_DIR/bin
    have_failpoints || die "$(realpath "$bin/vswitchd") or vswitch-cni beside it has no failpoints: it was built without the feature vswitchd/failpoints"
}

# What has them does not start with a place that is none.
have_failpoints() {
    ! CNI_COMMAND=VERSION VSWITCH_FAILPOINTS=nowhere=kill "$bin/vswitch-cni" >/dev/null 2>&1 &&
        ! VSWITCH_FAILPOINTS=nowhere=kill "$bin/vswitchd" --version >/dev/null 2>&1
}

# cases PART [ONLY]: one check for each.
cases() {
    local part=$1 line
    while read -r line; do
        case $line in
            'ok '*) pass "${line#ok }" ;;
            'skip '*) skip "${line#skip }" "" ;;
            *) fail "${line#not ok }" ;;
        esac
    done < <(PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$root/tests/lab/failpoint_cases.py" \
        "$part" "$LAB_DIR" "$bin" "$PLACES" "${2:-}" 2>&1 || echo "not ok failpoint_cases.py ended with code $?")
}

main "$@"

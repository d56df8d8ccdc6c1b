# shellcheck shell=bash
# Which crate may depend on which, and which may contain unsafe code. Checked against what cargo
# resolves, dependencies of dependencies included; those of tests and benchmarks are free. Sourced after
# report.sh; the working directory is the repository.

# CRATE only CRATE…    of the workspace's crates it depends on no others.
# CRATE never CRATE…   it depends on none of these, wherever they come from.
readonly BOUNDARIES=(
    'failpoint    only'
    'frame        only'
    'dataplane    only  frame'
    'api          only  failpoint'
    'controlplane only  api dataplane failpoint frame'
    'journal-format only  api controlplane dataplane failpoint frame'
    'tap          only'
    'netlink      only'
    'netio        never dataplane'
    'worker       never controlplane vswitchd'
    'vswitchctl   only  api failpoint'
    'vswitchctl   never xsk-rs libxdp-sys'
)
# The crates that may contain unsafe code; every other one forbids it.
readonly UNSAFE_CRATES=(frame netio tap)

# boundaries: one check for each line of the table, and one for each crate without unsafe code.
boundaries() {
    local rule crate word named metadata what
    metadata=$(cargo metadata --locked --no-deps --format-version 1) || {
        fail "cargo metadata"
        return 0
    }
    for rule in "${BOUNDARIES[@]}"; do
        read -r crate word named <<<"$rule"
        what="$crate depends on no crate of the workspace${named:+ but $named}"
        [[ $word == only ]] || what="$crate does not depend on $named"
        if [[ -z $(manifest_of "$crate") ]]; then
            skip "$what" "there is no such crate"
        else
            check "$what" "depends_$word" "$crate" "$named"
        fi
    done
    for crate in $(workspace_crates); do
        [[ " ${UNSAFE_CRATES[*]} " == *" $crate "* ]] ||
            check "$crate forbids unsafe code" forbids_unsafe "$crate"
    done
}

# Each of these reads `metadata`, what cargo says of the workspace, as JSON.

workspace_crates() { jq -r '.packages[].name' <<<"$metadata" | sort; }

# manifest_of CRATE: prints nothing if the workspace has none of that name.
manifest_of() {
    jq -r --arg name "$1" '.packages[] | select(.name == $name) | .manifest_path' <<<"$metadata"
}

# dependencies_of CRATE: the names of all that it is built from, a line each.
dependencies_of() {
    local tree
    tree=$(cargo tree --locked --manifest-path "$(manifest_of "$1")" --edges normal,build \
        --prefix none --format '{p}') || return 1
    cut -d' ' -f1 <<<"$tree" | sort -u | sed "/^$1\$/d"
}

# depends_only CRATE NAMES: prints what else it depends on.
depends_only() {
    local all
    all=$(dependencies_of "$1") || return 1
    ! comm -12 <(echo "$all") <(workspace_crates) | grep -vxF "$(tr ' ' '\n' <<<"$2")"
}

# depends_never CRATE NAMES: prints those that it depends on.
depends_never() {
    local all
    all=$(dependencies_of "$1") || return 1
    ! grep -xF "$(tr ' ' '\n' <<<"$2")" <<<"$all"
}

# forbids_unsafe CRATE: the library and each program of it; prints those that do not.
forbids_unsafe() {
    local file code=0
    while read -r file; do
        grep -qx '#!\[forbid(unsafe_code)\]' "$file" || { echo "not in $file" && code=1; }
    done < <(jq -r --arg name "$1" '.packages[] | select(.name == $name) | .targets[]
        | select(.kind | any(. == "lib" or . == "bin")) | .src_path' <<<"$metadata")
    return "$code"
}

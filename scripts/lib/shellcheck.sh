# shellcheck shell=bash
# Scripts by shellcheck, on all cores, each read with all that it sources. One that is clean is not read
# again until it, what it sources or shellcheck itself has changed.

# lint_scripts MARKS SCRIPT…: fails if it finds something in one of them. In the directory MARKS is a
# file for each that is clean: how it was read, and the sums of all that was.
lint_scripts() {
    local marks=$1 how script mark
    # A setting of the user's that hides something would be remembered for everybody.
    local -x SHELLCHECK_OPTS=
    shift
    how=$(shellcheck --version && declare -f lint_script)
    mkdir -p "$marks"
    for script in "$@"; do
        mark=$marks/${script//\//-}
        {
            printf '%s\n' "$how"
            sourced_by "$script" | xargs -d '\n' sha256sum
        } >"$mark.new"
        cmp -s "$mark" "$mark.new" || printf '%s\n' "$script" "$mark"
    done | xargs -r -d '\n' -n 2 -P "$(nproc)" bash -c 'lint_script "$@"' bash
}

# lint_script SCRIPT MARK
lint_script() { shellcheck --norc -x -a "$1" && mv "$2.new" "$2"; }
export -f lint_script

# sourced_by SCRIPT: it and all that is read with it, as the comments `shellcheck source=` name them.
sourced_by() {
    local known='' files=$1
    while [[ $files != "$known" ]]; do
        known=$files
        # shellcheck disable=SC2086
        files=$(sort -u <(printf '%s\n' $known) <(sed -n 's/^ *# shellcheck source=//p' $known))
    done
    printf '%s\n' "$files"
}

#!/bin/bash
# What scripts/test remembers of shellcheck: a clean script is not read again until something changes of
# what was read for it; one that is not clean is read each time. Needs neither root nor binaries.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"
# shellcheck source=scripts/lib/shellcheck.sh
. "$root/scripts/lib/shellcheck.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    if ! command -v shellcheck >/dev/null; then
        skip "what is remembered of shellcheck" "shellcheck is not here"
        report_end
        exit
    fi
    cd "$scratch"
    shellcheck_that_tells
    made deep.sh 'depth=1'
    made shared.sh '# shellcheck source=deep.sh' '. ./deep.sh'
    # shellcheck disable=SC2016
    made one.sh '# shellcheck source=shared.sh' '. ./shared.sh' 'echo "$depth"'
    made two.sh 'echo two'
    check "all are clean at first, and all are read" clean one.sh two.sh
    check "then none is read again" clean
    made two.sh 'echo more'
    check "but one that has changed" clean two.sh
    made deep.sh 'depth=2'
    check "and one that sources what has changed, however deep" clean one.sh
    made deep.sh 'depth=2' 'cd somewhere'
    check "what is wrong with that is found" found SC2164 one.sh
    check "each time" found SC2164 one.sh
    made deep.sh 'depth=2'
    check "until it is as it was" clean
    echo 'version: 0' >version
    check "another version of shellcheck reads everything" clean one.sh two.sh
    made two.sh 'cd somewhere'
    check "a user's own settings hide nothing" hidden_from_the_user SC2164 two.sh
    report_end
}

# made FILE LINE…
made() { printf '%s\n' '#!/bin/bash' "${@:2}" >"$1"; }

# The real one, which notes what it reads; its version is in a file.
shellcheck_that_tells() {
    mkdir bin
    cat >bin/shellcheck <<SH
#!/bin/bash
[[ \$* != --version ]] || exec cat version
printf '%s\n' "\${@: -1}" >>have_read
exec $(command -v shellcheck) "\$@"
SH
    chmod +x bin/shellcheck
    PATH=$scratch/bin:$PATH
    echo 'version: 1' >version
}

# judge SCRIPT…: judges one.sh and two.sh; fails unless these were read for it. What was found is in `found`.
judge() {
    : >have_read
    code=0
    lint_scripts "$scratch/marks" one.sh two.sh >found 2>&1 || code=$?
    [[ $(sort have_read | paste -sd' ') == "$*" ]] || { echo "read: $(paste -sd' ' have_read)" && return 1; }
}

# clean SCRIPT…: these are read, and nothing is found.
clean() { judge "$@" && ((code == 0)); }

# found CODE SCRIPT…: these are read, and that is found.
found() { judge "${@:2}" && ((code != 0)) && grep -q "$1" found; }

hidden_from_the_user() {
    echo 'disable=all' >.shellcheckrc
    SHELLCHECK_OPTS="--exclude=$1" found "$@"
}

main "$@"

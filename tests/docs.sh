#!/bin/bash
# The documentation: every relative link leads somewhere, headings included; the files that it names
# are there; and README.md is short enough to be read.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"

readonly README_BYTES=10000
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    cd "$root"
    local page pages=(README.md CONTRIBUTING.md CHANGELOG.md docs/*.md config/kubernetes/README.md)
    check "README.md has $README_BYTES bytes at most" test "$(wc -c <README.md)" -le "$README_BYTES"
    for page in docs/*.md; do
        check "README.md links to $page" grep -qF "]($page" README.md
    done
    for page in "${pages[@]}"; do
        check "the links of $page" links_lead_somewhere "$page"
        check "the files that $page names" named_files_are_there "$page"
    done
    check "a link to nothing is found" not_found 'see [it](nothing.md)' links_lead_somewhere
    check "a heading that is not there is found" not_found '[it](README.md#no-such)' links_lead_somewhere
    check "a file that is not there is found" not_found "as \`tests/nothing.sh\` does" \
        named_files_are_there
    report_end
}

# links_lead_somewhere PAGE: says each that does not.
links_lead_somewhere() {
    local page=$1 link file heading code=0
    while IFS= read -r link; do
        file=${link%%#*}
        heading=
        [[ $link != *'#'* ]] || heading=${link#*#}
        if [[ -n $file ]]; then file=$(dirname "$page")/$file; else file=$page; fi
        if [[ ! -e $file ]]; then
            say "$page: there is no $link"
            code=1
        elif [[ -n $heading ]] && ! headings "$file" | grep -qxF -- "$heading"; then
            say "$page: $link: there is no such heading"
            code=1
        fi
    done < <(prose "$page" | grep -o '](\([^)]*\))' | sed 's/^](//; s/)$//' | grep -v '^[a-z]*://' || true)
    return "$code"
}

# named_files_are_there PAGE: scripts and scenarios in backquotes, from the root of the repository.
named_files_are_there() {
    local page=$1 file code=0
    while IFS= read -r file; do
        [[ -e $file ]] || { say "$page: there is no $file" && code=1; }
    done < <(prose "$page" | grep -oE '`(scripts|tests|config|vswitch|cni-plugin|benches|fuzz)/[A-Za-z0-9_./-]+' |
        tr -d '`' || true)
    return "$code"
}

# Without the blocks of code: what is shown there is not ours to follow.
prose() { awk '/^ *```/ { code = !code; next } !code' "$1"; }

# As GitHub makes them of headings.
headings() {
    prose "$1" | sed -n 's/^##* //p' | tr '[:upper:]' '[:lower:]' | sed "s/[^a-z0-9 _-]//g; s/ /-/g"
}

# not_found TEXT CHECK: it fails for a page with that text.
not_found() {
    printf '%s\n' "$1" >"$scratch/page.md"
    printf '# A heading\n' >"$scratch/README.md"
    ! "$2" "$scratch/page.md" >/dev/null
}

main "$@"

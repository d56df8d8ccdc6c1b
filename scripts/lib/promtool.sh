# shellcheck shell=bash
# promtool, which checks metrics and alerts: Debian's, out of the package. Its package would start a server, so it is
# not installed. Sourced after setup.sh.

promtool_dir=${XDG_CACHE_HOME:-$HOME/.cache}/vswitch/promtool

# promtool_setup: prints the path of promtool; fails if it cannot be had.
promtool_setup() {
    local packages lock
    if command -v promtool; then return; fi
    if [[ ! -x $promtool_dir/promtool ]]; then
        mkdir -p "$promtool_dir"
        # As setup_packages: only one at a time has apt's lists.
        exec {lock}</var/lib/dpkg
        flock "$lock"
        packages=$(mktemp -d "$promtool_dir/packages.XXXXXX")
        # Into a directory that apt's unprivileged user cannot enter: it says so, and does it all the same.
        (cd "$packages" && { apt-get -qq download prometheus || { apt-get -q update && apt-get -qq download prometheus; }; } &&
            dpkg-deb -x prometheus_*.deb tree) >"$promtool_dir/log" 2>&1 &&
            mv "$packages/tree/usr/bin/promtool" "$promtool_dir/promtool"
        rm -rf "$packages"
        exec {lock}<&-
    fi
    [[ -x $promtool_dir/promtool ]] && printf '%s\n' "$promtool_dir/promtool"
}

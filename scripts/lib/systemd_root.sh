# shellcheck shell=bash
# The files of a small Debian machine with systemd, for nodes on which the units run as they are
# shipped. Made once, by mmdebstrap, from the machine's own package sources; it stays in the user's
# cache, and a node boots from a throw-away overlay of it. Sourced after setup.sh.

SYSTEMD_CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/vswitch/systemd
# Beside Debian's essential packages: systemd as the first process, and what the vSwitch executes or a
# person looks with. Neither D-Bus nor Python.
readonly SYSTEMD_PACKAGES=usr-is-merged,systemd-sysv,iproute2,nftables,iputils-ping,procps
# What no test reads.
readonly SYSTEMD_LEAVES_OUT="/usr/share/doc/* /usr/share/man/* /usr/share/locale/*"

# systemd_root: the directory; another one for another release or list of packages.
systemd_root() {
    local stamp
    stamp=$(printf '%s\n' "$(debian_release)" "$SYSTEMD_PACKAGES" "$SYSTEMD_LEAVES_OUT" | sha256sum)
    printf '%s/%s-%s' "$SYSTEMD_CACHE" "$(debian_release)" "${stamp:0:12}"
}

debian_release() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

# systemd_root_build: makes it if it is not there.
systemd_root_build() {
    local tree lock
    setup_packages systemd-node
    tree=$(systemd_root)
    [[ ! -d $tree ]] || return 0
    mkdir -p "$SYSTEMD_CACHE"
    exec {lock}>"$SYSTEMD_CACHE/lock"
    if ! flock --nonblock "$lock"; then
        step "Waiting for another build of the machine with systemd to end"
        flock "$lock"
    fi
    if [[ ! -d $tree ]]; then
        # Under the lock, what is here was left by a build that was killed.
        rm -rf --one-file-system "$SYSTEMD_CACHE"/work.*
        # What it starts does not inherit the lock, nor outlives the subshell's clean-up.
        (systemd_root_make "$tree" {lock}>&-) || return 1
    fi
    exec {lock}>&-
}

# systemd_root_make TREE: in a subshell, whose end removes what is half made.
systemd_root_make() {
    local tree=$1 work exclude options=()
    work=$(mktemp -d "$SYSTEMD_CACHE/work.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf --one-file-system '$work'" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    debian_sources >"$work/sources.list"
    if [[ ! -s $work/sources.list ]]; then
        step "apt-get update, because apt has no package lists"
        apt-get -q update >"$work/log" 2>&1 || { cat "$work/log" >&2 && die "apt-get update fails"; }
        debian_sources >"$work/sources.list"
    fi
    [[ -s $work/sources.list ]] || die "apt has no package source of Debian $(debian_release)"
    apt_settings >"$work/apt.conf"
    read -ra exclude <<<"$SYSTEMD_LEAVES_OUT"
    mapfile -t options < <(printf -- '--dpkgopt=path-exclude=%s\n' "${exclude[@]}")
    step "Making a Debian machine with systemd (90 MB; once, about a minute)"
    # The list names the suites. It mounts /dev and the like in the tree, which nobody else has to see, and
    # nobody to remove.
    if ! unshare --mount mmdebstrap --variant=essential --format=directory \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --aptopt="$work/apt.conf" \
        --include="$SYSTEMD_PACKAGES" "${options[@]}" '' "$work/tree" "$work/sources.list" \
        >"$work/log" 2>&1; then
        tail -n 15 "$work/log" >&2
        die "mmdebstrap cannot make a Debian machine"
    fi
    # What it took of this machine: where apt fetches from and how, name, resolvers.
    rm -f "$work/tree/etc/apt/sources.list.d"/* "$work/tree/etc/apt/apt.conf.d/99mmdebstrap" \
        "$work/tree"/etc/{hostname,resolv.conf}
    mv "$work/tree" "$tree"
}

# The machine's package sources of its own release, as lines of a sources.list.
debian_sources() {
    apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
        'Created-By: Packages' 'Origin: Debian' |
        awk -v release="$(debian_release)" '$3 == release || index($3, release "-") == 1' | sort -u
}

# How the machine's apt fetches: proxies, and what it takes for old.
apt_settings() { apt-config dump | grep -E '^Acquire::(https?|Check-|Retries)' || true; }

# shellcheck shell=bash
# What the scripts need on the machine: Debian packages, a Rust toolchain, the built binaries. What
# is missing is installed, said aloud; what is there is left alone. Sourced after report.sh; needs
# `root` (the repository).

: "${root:?the sourcing script sets it to the repository}"

# Debian packages by purpose: to build, to run the lab, a VM in it, to run the tests, to run a
# Kubernetes API server and to build it, a machine with systemd, and containers by a real runtime.
packages_for() {
    case $1 in
        build)
            echo clang m4 pkg-config libelf-dev zlib1g-dev libclang-dev make gcc libc6-dev \
                ca-certificates curl
            ;;
        lab)
            echo iproute2 iputils-ping tcpdump nftables ethtool curl jq python3 python3-scapy \
                containernetworking-plugins iptables bpftool procps util-linux
            ;;
        vm) echo qemu-system-x86 ;;
        bgp) echo bird2 frr ;;
        ovs) echo openvswitch-switch ;;
        test) echo shellcheck systemd ;;
        systemd-node) echo mmdebstrap systemd-container procps util-linux ;;
        podman) echo podman conmon runc busybox-static ;;
        # The last are for our client of the CRI: Debian 12 has none.
        containerd) echo containerd runc busybox-static python3-grpcio python3-protobuf protobuf-compiler ;;
        etcd) echo etcd-server ;;
        kubelet) echo binutils iptables conntrack mount ;;
        guestbook) echo redis-server redis-tools ;;
        kubernetes) echo curl jq openssl iproute2 procps util-linux ;;
        kubernetes-build)
            echo golang-go golang-github-modern-go-reflect2-dev dpkg-dev patch xz-utils ca-certificates
            ;;
        *) die "packages_for: no purpose is named $1" ;;
    esac
}

# The oldest Rust that the workspace accepts is in Cargo.toml.
rust_needed() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

# setup_packages PURPOSE…: installs those that are missing. Scenarios that run side by side wait for one
# another here.
setup_packages() {
    local purpose package lock missing=()
    for purpose in "$@"; do
        for package in $(packages_for "$purpose"); do
            installed "$package" || missing+=("$package")
        done
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) ||
        die "Missing Debian packages: ${missing[*]}. Run this as root, or: apt-get install ${missing[*]}"
    step "Installing ${#missing[@]} missing Debian packages: ${missing[*]}"
    exec {lock}</var/lib/dpkg
    flock "$lock"
    local log
    log=$(mktemp)
    apt_install "$log" "${missing[@]}" || {
        step "Trying again after apt-get update"
        apt-get -q update >>"$log" 2>&1 && apt_install "$log" "${missing[@]}"
    } || {
        tail -n 15 "$log" >&2
        die "apt-get could not install ${missing[*]}; its log is $log"
    }
    exec {lock}<&-
    rm -f "$log"
}

installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed'
}

# apt_install LOG PACKAGE…: a daemon that comes in a package is for the lab alone, so that none is
# started on the machine, and none at its next boot. Nothing that is there is removed for it, such as
# another build of a runtime.
apt_install() {
    local log=$1 policy=/usr/sbin/policy-rc.d code=0 unit
    shift
    if [[ -e $policy ]]; then
        policy=
    else
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends --no-remove "$@" \
        >>"$log" 2>&1 || code=$?
    [[ -z $policy ]] || rm -f "$policy"
    if [[ -d /run/systemd/system ]]; then
        for unit in bird frr openvswitch-switch etcd redis-server containerd podman podman.socket podman-{restart,auto-update.timer}; do
            [[ ! " $* " =~ \ ${unit%%[-.]*} ]] || systemctl disable --quiet "$unit" >>"$log" 2>&1 || true
        done
    fi
    return "$code"
}

# The one that is installed where there is none that is new enough: a later clippy may warn of more.
readonly RUST_TESTED=1.95.0

# Puts a cargo that is new enough into PATH; installs one with rustup if there is none.
setup_rust() {
    local have needed
    needed=$(rust_needed)
    [[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if command -v cargo >/dev/null; then
        have=$(cargo --version | cut -d' ' -f2)
        [[ $(printf '%s\n%s\n' "$needed" "$have" | sort -V | head -n 1) == "$needed" ]] && return 0
        step "cargo is $have, and $needed or later is needed"
    fi
    if command -v rustup >/dev/null; then
        step "Installing Rust $RUST_TESTED with rustup"
        rustup toolchain install "$RUST_TESTED" --profile minimal -c clippy,rustfmt >/dev/null
        export RUSTUP_TOOLCHAIN=$RUST_TESTED
    else
        step "Installing rustup and Rust $RUST_TESTED into ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 -fsS https://static.rust-lang.org/rustup/rustup-init.sh |
            sh -s -- -y -q --no-modify-path --profile minimal -c clippy,rustfmt \
                --default-toolchain "$RUST_TESTED" >/dev/null
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || die "There is still no cargo in PATH; install Rust $needed by hand"
}

# setup_nightly: a nightly toolchain beside it; fails if it cannot be had.
setup_nightly() {
    command -v rustup >/dev/null || return 1
    rustup toolchain list | finds '^nightly' && return 0
    step "Installing the nightly Rust toolchain with rustup"
    rustup --quiet toolchain install nightly --profile minimal
}

# setup_nightly_components COMPONENT…: with these; fails if they cannot be had.
setup_nightly_components() {
    local component
    setup_nightly || return 1
    for component in "$@"; do
        rustup component list --toolchain nightly --installed | finds "^$component" && continue
        step "Installing its component $component"
        rustup --quiet component add --toolchain nightly "$component" || return 1
    done
}

# Builds the three binaries in release mode and sets `bin`, the directory in which they are.
setup_binaries() {
    bin=${VSWITCH_BIN:-}
    if [[ -n $bin ]]; then
        [[ -x $bin/vswitchd ]] || die "VSWITCH_BIN names $bin, which holds no vswitchd"
        step "Using the binaries in $bin"
        return 0
    fi
    setup_rust
    build_release vswitchd vswitchctl vswitch-cni
    bin=${CARGO_TARGET_DIR:-$root/target}/release
}

# setup_binaries_and_agent: vswitch-agent beside them. Where they are this checkout's own, it is built.
setup_binaries_and_agent() {
    setup_binaries
    if [[ $bin != "${CARGO_TARGET_DIR:-$root/target}/release" ]]; then
        [[ -x $bin/vswitch-agent ]] || die "VSWITCH_BIN names $bin, which holds no vswitch-agent"
        return 0
    fi
    setup_rust
    build_release vswitch-agent
}

# build_release PACKAGE…
build_release() {
    step "Building $* in release mode (minutes, the first time)"
    (cd "$root" && cargo build --quiet --release --locked "${@/#/--package=}") ||
        die "The build failed; the messages above say where"
}

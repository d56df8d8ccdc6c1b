#!/bin/bash
# A node whose IPv6 default routes come by router advertisements keeps them when the shipped sysctls have the kernel
# forward, as scripts/install sets them: by its NIC, and by another interface. An interface that no router
# has told anything stays as it was. Where the settings are wrong, status names interface and cure, and the
# daemon puts forwarding right without losing the route.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PATIENCE_SECONDS=5

main() {
    setup_binaries
    lab_trap
    lab_create
    underlay_up
    node_told node-d
    node_told node-a
    another_interface
    without_install
    with_install
    changed_by_others
    report_end
}

# node_told NODE: it does not forward yet, and routers tell it where the world is.
node_told() {
    underlay_attach "$1"
    in_ip "$1" route add default via "${LAN_GATEWAY[${HOST_LAN[$1]}]}"
    in_ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=0 \
        net.ipv6.conf.default.accept_ra=1 net.ipv6.conf.eth0.accept_ra=1
    # An advertisement may come before the kernel listens.
    check "$1 has a default route by an advertisement" \
        wait_until "$PATIENCE_SECONDS" advertised "$1" eth0 lan-a 2001:db8:a::
}

# advertised NODE INTERFACE LAN PREFIX
advertised() {
    advertise "$3" "$4"
    has_default "$1" "$2"
}

# advertise LAN PREFIX
advertise() { in_ns router /usr/bin/python3 "$root/tests/lab/advertise_prefix.py" "$1" "$2"; }

has_default() { in_ip "$1" -6 route show default dev "$2" | finds 'proto ra'; }

# For the node's operators, beside the NIC; and one of a container, say.
another_interface() {
    in_ip router link add to-mgmt type veth peer name mgmt netns "$(ns node-a)"
    in_ip router link set to-mgmt master lan-out up
    in_ip node-a link set mgmt up
    in_ip node-a link add container type veth peer name inside
    in_ip node-a link set container up
    check "another interface has one, too" \
        wait_until "$PATIENCE_SECONDS" advertised node-a mgmt lan-out 2001:db8:c::
}

# The file alone, as an image or another program brings it.
without_install() {
    mkdir -p "$(node_dir node-d)"
    node_config node-d vxlan >"$(node_dir node-d)/vswitch.toml"
    check "vswitchd --check warns before" warns node-d "sysctl -w net.ipv6.conf.eth0.accept_ra=2"
    in_ns node-d sysctl -qp "$root/config/sysctl.d/90-vswitch.conf"
    check_not "forwarding alone costs the default route" has_default node-d eth0
    node_up node-d vxlan
    check "status names the interface" attention node-d "eth0 takes no router advertisements"
    check "and the cure" attention node-d "sysctl -w net.ipv6.conf.eth0.accept_ra=2"
    in_ns node-d sysctl -qw net.ipv6.conf.eth0.accept_ra=2
    check "which ends that" no_attention node-d "router advertisements"
    check "and the next advertisement gives the route back" \
        wait_until "$PATIENCE_SECONDS" advertised node-d eth0 lan-a 2001:db8:a::
    lab_stop vswitchd-node-d
}

with_install() {
    mkdir -p "$LAB_DIR/machine"
    # The uplink is configured before the second run, as on a node that is upgraded.
    check "scripts/install" installed
    check "its sysctls" in_machine sysctl -qp /etc/sysctl.d/10-vswitch-accept-ra.conf /etc/sysctl.d/90-vswitch.conf
    check "the kernel forwards" is_set node-a all.forwarding 1
    check "the NIC's default route stays" has_default node-a eth0
    check "and the other interface's" has_default node-a mgmt
    check "an interface that was told nothing is left alone" is_set node-a container.accept_ra 1
    check "it installs over itself" installed
    check "and the settings stay" test "$(settings)" = 2
    check "it uninstalls" in_machine "$root/scripts/install" --uninstall
    check_not "and takes the settings away" in_machine test -e /etc/sysctl.d/10-vswitch-accept-ra.conf
}

installed() { in_machine env VSWITCH_BIN="$bin" "$root/scripts/install"; }

settings() {
    in_machine grep -c '^net/ipv6/conf/\(eth0\|mgmt\)/accept_ra = 2$' /etc/sysctl.d/10-vswitch-accept-ra.conf
}

# in_machine COMMAND…: in node-a's network, on a machine of whose files every change stays in the lab.
in_machine() {
    # shellcheck disable=SC2016  # The shell that is executed expands it.
    in_ns node-a unshare --mount bash -euc '
        for tree in /etc /opt /usr/local; do
            mkdir -p "$0$tree/upper" "$0$tree/work"
            mount -t overlay overlay -o "lowerdir=$tree,upperdir=$0$tree/upper,workdir=$0$tree/work" "$tree"
        done
        # No systemd of the machine is concerned.
        [[ ! -d /run/systemd/system ]] || mount -t tmpfs tmpfs /run/systemd
        "$@"' "$LAB_DIR/machine" "$@"
}

# is_set NODE SETTING VALUE
is_set() { [[ $(in_ns "$1" sysctl -n "net.ipv6.conf.$2") == "$3" ]]; }

# A network manager puts accept_ra back, or somebody forwarding.
changed_by_others() {
    node_up node-a vxlan
    check "status has nothing to say of it" no_attention node-a "router advertisements"
    in_ns node-a sysctl -qw net.ipv6.conf.eth0.accept_ra=1
    check "accept_ra 1 is named, before the route is lost" attention node-a "eth0 takes no router advertisements"
    check "which it is not yet" has_default node-a eth0
    in_ns node-a sysctl -qw net.ipv6.conf.all.forwarding=0
    check "forwarding is put right" wait_until "$PATIENCE_SECONDS" is_set node-a all.forwarding 1
    check "after accept_ra" is_set node-a eth0.accept_ra 2
    check "and the route stays" has_default node-a eth0
    check "status is content" no_attention node-a "router advertisements"
}

warns() { in_ns "$1" "$bin/vswitchd" --check --config "$(node_dir "$1")/vswitch.toml" | finds "^warning: .*$2"; }

attention() { ctl "$1" status --json | jq -e --arg words "$2" 'any(.warnings[]; contains($words))'; }

no_attention() { ! attention "$@"; }

main "$@"

# shellcheck shell=bash
# Which interfaces are to go on taking router advertisements when the kernel forwards: it ignores them then
# where accept_ra is 1, and drops the default routes that came by them. Sourced by scripts/install; what it reads
# is the network namespace that it runs in.

# accept_ra_lines UPLINK FORMER: lines of sysctl.d, for the uplink, for other interfaces that have something of an
# advertisement, and for those that the file FORMER has already. Interfaces of containers are not among them: no
# router is behind them, and a container that sent an advertisement would become the node's router.
accept_ra_lines() {
    local uplink=$1 former=$2 conf name
    {
        grep -s '^net/ipv6/conf/' "$former" || true
        for conf in /proc/sys/net/ipv6/conf/*; do
            name=${conf##*/}
            [[ $name != all && $name != default && -r $conf/accept_ra ]] || continue
            [[ $(<"$conf/accept_ra") == 1 ]] || continue
            # One that forwards already takes none: nothing of it is lost.
            [[ $name == "$uplink" && $(<"$conf/forwarding") == 0 ]] || has_advertised "$name" || continue
            # With slashes, so that the dots of a VLAN's name are its own.
            printf 'net/ipv6/conf/%s/accept_ra = 2\n' "$name"
        done
    } | sort -u
}

# has_advertised INTERFACE: a default route by a router's advertisement, or an address that passes.
has_advertised() {
    [[ -n $(ip -6 route show default proto ra dev "$1" 2>/dev/null) ||
        -n $(ip -6 address show dev "$1" scope global dynamic 2>/dev/null) ]]
}

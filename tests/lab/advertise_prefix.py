"""Sends one router advertisement, as a router of the link: `INTERFACE PREFIX`, a /64 from which hosts
make their own addresses."""

import sys

from scapy.all import (
    Ether,
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    get_if_hwaddr,
    sendp,
)

LIFETIME_SECONDS = 1800


def main():
    interface, prefix = sys.argv[1:]
    mac = get_if_hwaddr(interface)
    advertisement = (
        Ether(src=mac, dst="33:33:00:00:00:01")
        # RFC 4861 section 6.1.2: from a link-local address, and never forwarded.
        / IPv6(src="fe80::1", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=LIFETIME_SECONDS)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
        / ICMPv6NDOptPrefixInfo(
            prefix=prefix,
            prefixlen=64,
            L=1,
            A=1,
            validlifetime=LIFETIME_SECONDS,
            preferredlifetime=LIFETIME_SECONDS,
        )
    )
    sendp(advertisement, iface=interface, verbose=False)


main()

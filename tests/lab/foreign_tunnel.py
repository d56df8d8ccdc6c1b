"""A tunnel packet from a host: what does its receiver's kernel say of it.

foreign_tunnel.py ADDRESS PROTOCOL   sends packets of IP protocol 4 or 41 there, and succeeds as soon
                                     as ADDRESS answers "protocol unreachable": its kernel has got
                                     one and has no tunnel for it; fails after three seconds
"""

import select
import socket
import struct
import sys
import time

# RFC 792: destination unreachable, protocol unreachable.
PROTOCOL_UNREACHABLE = (3, 2)
SECONDS = 3
AGAIN_SECONDS = 0.2


def inner(protocol):
    """A header without payload, of the version that the protocol number stands for; no peer's pod
    sends from there."""
    if protocol == 4:
        ends = socket.inet_aton("198.18.99.9") + socket.inet_aton("198.18.1.2")
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, 59, 0) + ends
        total = sum(struct.unpack("!10H", header))
        checksum = ~(total + (total >> 16)) & 0xFFFF
        return header[:10] + struct.pack("!H", checksum) + header[12:]
    ends = [socket.inet_pton(socket.AF_INET6, text) for text in ("fd00:18:99::9", "fd00:18:1::2")]
    return struct.pack("!IHBB16s16s", 6 << 28, 0, 59, 64, *ends)


def refused(hearing, address, protocol):
    """Whether the message that waits is about one of our packets."""
    message, (source, _) = hearing.recvfrom(2048)
    icmp = message[(message[0] & 15) * 4 :]
    return (
        source == address
        and len(icmp) >= 28
        and (icmp[0], icmp[1]) == PROTOCOL_UNREACHABLE
        and icmp[8 + 9] == protocol
    )


def main(address, protocol):
    hearing = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sending = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    end = time.monotonic() + SECONDS
    while (now := time.monotonic()) < end:
        sending.sendto(inner(protocol), (address, 0))
        again = now + AGAIN_SECONDS
        # Other ICMP is under way all the time: a ping's.
        while (left := again - time.monotonic()) > 0:
            if select.select([hearing], [], [], left)[0] and refused(hearing, address, protocol):
                return
    sys.exit(f"{address} never said that protocol {protocol} is unreachable")


main(sys.argv[1], int(sys.argv[2]))

"""Says that a tunnel packet was too big, without having seen one: as any host of the underlay can.

Usage: forge_too_big.py NODE PEER PORT MTU
    to NODE: its packet to PEER, UDP port PORT, was longer than the MTU; all addresses of one family.
"""

import ipaddress
import socket
import struct
import sys

QUOTED_BYTES = 1400
UNREACHABLE, FRAGMENTATION_NEEDED, PACKET_TOO_BIG = 3, 4, 2


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def quoted4(node, peer):
    header = struct.pack("!BBHHHBBH", 0x45, 0, QUOTED_BYTES, 0, 0x4000, 63, socket.IPPROTO_UDP, 0)
    header += node.packed + peer.packed
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]


def quoted6(node, peer):
    header = struct.pack("!IHBB", 6 << 28, QUOTED_BYTES - 40, socket.IPPROTO_UDP, 63)
    return header + node.packed + peer.packed


def main():
    node, peer = map(ipaddress.ip_address, sys.argv[1:3])
    port, mtu = map(int, sys.argv[3:])
    udp_len = QUOTED_BYTES - (40 if node.version == 6 else 20)
    udp = struct.pack("!HHHH", 50000, port, udp_len, 0)
    if node.version == 6:
        message = struct.pack("!BBHI", PACKET_TOO_BIG, 0, 0, mtu) + quoted6(node, peer) + udp
        # The kernel fills in an ICMPv6 checksum by itself.
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    else:
        message = struct.pack("!BBHHH", UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, mtu)
        message += quoted4(node, peer) + udp
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.sendto(message, (str(node), 0))


main()

"""A VXLAN packet that no node of the cluster sent: raw bytes, from whatever address is asked for.

forge_vxlan.py OUTER_SOURCE OUTER_DESTINATION VNI INNER_SOURCE INNER_DESTINATION [COUNT [INNER_DESTINATION_MAC]]
"""

import socket
import struct
import sys


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, source, destination, payload):
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp(source, destination, payload):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def vtep(address):
    """The MAC that our nodes derive of their underlay address."""
    return b"\x02\x76" + socket.inet_aton(address)


def main(source, destination, vni, inner_source, inner_destination, count=1, mac=None):
    inner = ipv4(17, inner_source, inner_destination, udp(7, 7, b"forged"))
    to = bytes.fromhex(mac.replace(":", "")) if mac else vtep(destination)
    frame = to + vtep(source) + b"\x08\x00" + inner
    vxlan = struct.pack("!II", 0x08000000, int(vni) << 8) + frame
    packet = ipv4(17, source, destination, udp(50000, 4789, vxlan))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(int(count)):
            raw.sendto(packet, (destination, 0))


main(*sys.argv[1:])

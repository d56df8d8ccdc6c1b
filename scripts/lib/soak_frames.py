"""Frames as a sender with a raw socket makes them, byte by byte.

Enters: MACs as bytes, addresses as text. Leaves: bytes, with right lengths and sums, so that what is wrong with
a frame is what its maker meant. Each carries MARK, by which it is known wherever it comes out.
"""

import socket
import struct

MARK = b"FORGED"

BROADCAST = b"\xff" * 6
ALL_NODES = b"\x33\x33\x00\x00\x00\x01"
IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ICMP, IGMP, IPIP, TCP, UDP, IPV6_IN_IP, GRE, ICMPV6 = 1, 2, 4, 6, 17, 41, 47, 58
MORE_FRAGMENTS = 0x2000


def is_v6(address):
    return ":" in address


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if is_v6(address) else socket.AF_INET, address)


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_sum(header, at, covered):
    return header[:at] + struct.pack("!H", checksum(covered)) + header[at + 2 :]


def ethernet(destination, source, kind, payload):
    return destination + source + struct.pack("!H", kind) + payload


def frame_of(destination, source, packet):
    """An IP packet in Ethernet."""
    return ethernet(destination, source, IPV6 if packet[0] >> 4 == 6 else IPV4, packet)


def arp(operation, sender_mac, sender, target_mac, target):
    ends = sender_mac + packed(sender) + target_mac + packed(target)
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + ends + MARK


def ip(source, destination, protocol, payload, ttl=64, options=b"", fragment=0):
    """Options and fragments are IPv4's."""
    ends = packed(source) + packed(destination)
    if is_v6(source):
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + ends + payload
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 7, fragment, ttl, protocol, 0)
    header += ends + options
    return with_sum(header, 10, header) + payload


def transport(source, destination, protocol, header, sum_at):
    """An upper header with its payload, whose sum covers the addresses."""
    pseudo = packed(source) + packed(destination) + struct.pack("!IHBB", len(header), 0, 0, protocol)
    return with_sum(header, sum_at, pseudo + header)


def udp(source, destination, source_port, port, payload=MARK, **fields):
    header = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    return ip(source, destination, UDP, transport(source, destination, UDP, header, 6), **fields)


def icmpv6(source, destination, kind, body, ttl=255):
    header = struct.pack("!BBH", kind, 0, 0) + body
    return ip(source, destination, ICMPV6, transport(source, destination, ICMPV6, header, 2), ttl)


def icmp(source, destination, kind, code, body):
    header = struct.pack("!BBH", kind, code, 0) + body
    return ip(source, destination, ICMP, with_sum(header, 2, header))


def advertisement(target, mac):
    """Body of a neighbour advertisement: solicited and overriding, with MAC as the target's."""
    # RFC 4861, section 4.6.1; RFC 4727 has option 253 for experiments, which receivers skip.
    return struct.pack("!I", 0x60000000) + packed(target) + b"\x02\x01" + mac + b"\xfd\x01" + MARK


def igmp_query():
    header = struct.pack("!BBH4s", 0x11, 100, 0, bytes(4)) + MARK
    return with_sum(header, 2, header)


def vxlan(vni, frame, flags=0x08):
    """RFC 7348, section 5: what a datagram to a VXLAN port carries."""
    return struct.pack("!II", flags << 24, vni << 8) + frame

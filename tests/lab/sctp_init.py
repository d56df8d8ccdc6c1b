"""The beginning of an SCTP association (RFC 9260), where the kernel may have no SCTP: INIT and INIT ACK.

Usage: sctp_init.py serve
       sctp_init.py ask ADDRESS PORT

A server answers each INIT to any of its ports, from the address and port that it came to. A client takes
only an INIT ACK from the end that it asked, and gives up after two seconds. Neither takes a packet whose
CRC32c is wrong.
"""

import random
import select
import socket
import struct
import sys
import time

IPPROTO_SCTP = 132
INIT, INIT_ACK = 1, 2
# Another one each time, as a session of the last one may be there.
CLIENT_PORT = random.randrange(32768, 61000)
TAG = 7
# Bytes of the common header: ports, verification tag, checksum.
HEADER_LEN = 12


def crc32c(data):
    """RFC 9260, appendix A: reflected, of the polynomial 0x1EDC6F41."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def packet(source, destination, tag, kind):
    """One chunk with neither options nor cookie: initiate tag, window, streams out and in, first TSN."""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, TAG, 65536, 1, 1, TAG)
    ports = struct.pack("!HHI", source, destination, tag)
    checksum = crc32c(ports + bytes(4) + chunk)
    return ports + struct.pack("<I", checksum) + chunk


def parsed(data):
    """Ports and the kind of the first chunk of a packet that came whole."""
    if len(data) <= HEADER_LEN:
        return None
    source, destination = struct.unpack("!HH", data[:4])
    (checksum,) = struct.unpack("<I", data[8:HEADER_LEN])
    if crc32c(data[:8] + bytes(4) + data[HEADER_LEN:]) != checksum:
        return None
    return source, destination, data[HEADER_LEN]


def opened(family):
    return socket.socket(family, socket.SOCK_RAW, IPPROTO_SCTP)


def received(endpoint):
    """The sender's address, and what it sent. An IPv4 socket has the IP header in front of it."""
    data, sender = endpoint.recvfrom(2048)
    if endpoint.family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    return sender[0], parsed(data)


def serve():
    endpoints = [opened(socket.AF_INET), opened(socket.AF_INET6)]
    while True:
        for endpoint in select.select(endpoints, [], [])[0]:
            client, came = received(endpoint)
            if came and came[2] == INIT:
                # The kernel answers from the address that routes say, which is a pod's only one.
                endpoint.sendto(packet(came[1], came[0], TAG, INIT_ACK), (client, 0))


def ask(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with opened(family) as endpoint:
        endpoint.sendto(packet(CLIENT_PORT, port, 0, INIT), (address, 0))
        deadline = time.monotonic() + 2
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([endpoint], [], [], left)[0]:
                break
            if received(endpoint) == (address, (port, CLIENT_PORT, INIT_ACK)):
                return
    sys.exit(f"no INIT ACK from {address} port {port}")


match sys.argv[1:]:
    case ["serve"]:
        serve()
    case ["ask", address, port]:
        ask(address, int(port))
    case _:
        sys.exit(__doc__)

"""Who asks whom, over UDP: the first packet of either side is all there is.

Usage: udp_who.py serve PORT
       udp_who.py ask ADDRESS PORT [OWN_PORT [OWN_ADDRESS]]

A server answers `CLIENT SERVER`, the two addresses as it sees them, from the one it was asked at. A
client takes only what comes from the address that it asked, and gives up after two seconds; it asks from
OWN_PORT, or one of the kernel's choice if that is absent or zero, and likewise from OWN_ADDRESS.
"""

import socket
import struct
import sys


def plain(address):
    """An IPv4 address as such, not as the IPv6 socket shows it."""
    return address.removeprefix("::ffff:")


def serve(port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        while True:
            _, ancillary, _, client = server.recvmsg(64, socket.CMSG_SPACE(20))
            ((level, kind, data),) = ancillary
            own = data[:16]
            address = socket.inet_ntop(socket.AF_INET6, own)
            body = f"{plain(client[0])} {plain(address)}\n".encode()
            # The source alone is ours to say, the way out is the kernel's.
            source = (level, kind, struct.pack("16sI", own, 0))
            server.sendmsg([body], [source], 0, client)


def ask(address, port, own_port=0, own_address=""):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.bind((own_address, own_port))
        client.connect((address, port))
        client.send(b"who")
        try:
            print(client.recv(256).decode(), end="")
        except TimeoutError:
            sys.exit(f"no answer from {address}")


match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port))
    case ["ask", address, port]:
        ask(address, int(port))
    case ["ask", address, port, own_port]:
        ask(address, int(port), int(own_port))
    case ["ask", address, port, own_port, own_address]:
        ask(address, int(port), int(own_port), own_address)
    case _:
        sys.exit(__doc__)

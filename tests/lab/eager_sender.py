"""Sends datagrams from the first moment in which its namespace can, which may have no interface yet.

eager_sender.py send NAME PORT ADDRESS…   says `waits`, and from the first round on that went to every address
                                          `sent ROUNDS`, until it is ended
eager_sender.py count PORT                says `NAME IPv4` or `NAME IPv6` when the first of a sender arrives
"""

import contextlib
import socket
import sys
import time

# Between two rounds, once one has left.
PAUSE_SECONDS = 0.001


def send(name, port, addresses):
    print("waits", flush=True)
    flows = [
        (socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM), address)
        for address in addresses
    ]
    rounds = 0
    while True:
        # Each of them is tried, whatever becomes of the others.
        went = [went_to(flow, name, address, port) for flow, address in flows]
        if all(went):
            rounds += 1
            print("sent", rounds, flush=True)
        time.sleep(PAUSE_SECONDS if any(went) else 0)


def went_to(flow, name, address, port):
    with contextlib.suppress(OSError):
        flow.sendto(name.encode(), (address, port))
        return True
    return False


def count(port):
    seen = set()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        while True:
            name, client = server.recvfrom(64)
            family = "IPv4" if client[0].startswith("::ffff:") else "IPv6"
            what = f"{name.decode()} {family}"
            if what not in seen:
                seen.add(what)
                print(what, flush=True)


match sys.argv[1:]:
    case ["send", name, port, *addresses]:
        send(name, int(port), addresses)
    case ["count", port]:
        count(int(port))
    case _:
        sys.exit(__doc__)

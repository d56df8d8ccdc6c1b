"""Many flows of UDP at once, told apart by their source ports, each of a few datagrams.

They are sent all the time until SINCE, and then as many as DATAGRAMS of each.

Usage: flow_burst.py PEER_ADDRESS PEER_PORT FIRST_SOURCE_PORT FLOWS DATAGRAMS SINCE
"""

import socket
import sys
import time

# The flows' datagrams are spread over this time, so that none meets a full queue.
PAUSE_SECONDS = 0.0002


def main():
    peer, port, first, flows, datagrams = sys.argv[1], *map(int, sys.argv[2:6])
    since = float(sys.argv[6])
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    any_address = "::" if family == socket.AF_INET6 else "0.0.0.0"
    sockets = []
    for source in range(first, first + flows):
        flow = socket.socket(family, socket.SOCK_DGRAM)
        flow.bind((any_address, source))
        sockets.append(flow)
    while datagrams > 0:
        if time.time() >= since:
            datagrams -= 1
        for flow in sockets:
            flow.sendto(b"flow", (peer, port))
            time.sleep(PAUSE_SECONDS)


main()

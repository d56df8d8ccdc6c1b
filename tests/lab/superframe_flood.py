"""Sends UDP superframes as fast as they can be sent, for so many seconds.

The kernel cuts none of them on the way to the pod's interface, so that few system calls keep a worker busy.

Usage: superframe_flood.py ADDRESS PORT SECONDS
"""

import socket
import sys
import time

# linux/udp.h.
UDP_SEGMENT = 103
PIECE_BYTES = 1200
PIECES = 40


def main():
    address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, PIECE_BYTES)
    flow.connect((address, port))
    payload = bytes(PIECES * PIECE_BYTES)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            flow.send(payload)
        except OSError:
            pass  # Nobody listens there, or the interface's queue is full.


main()

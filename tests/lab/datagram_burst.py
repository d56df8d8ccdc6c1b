"""Sends datagrams as fast as it can: more at once than the interface's queue holds, if nobody reads it.

datagram_burst.py ADDRESS PORT COUNT
"""

import socket
import sys


def main():
    peer, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # An answer that nobody listens would be an error of the next datagram, if the socket were connected.
    for _ in range(count):
        sender.sendto(b"burst", peer)


main()

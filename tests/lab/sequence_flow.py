"""One end of a flow of numbered datagrams, in both directions at once.

Sends a number every few milliseconds and notes those that the other end sends. On SIGTERM it ends,
and prints what it missed between the first and the last number that it heard.

Usage: sequence_flow.py OWN_ADDRESS PEER_ADDRESS PORT
"""

import select
import signal
import socket
import struct
import sys
import time

INTERVAL_SECONDS = 0.002
PAYLOAD = bytes(64)


def main():
    own, peer, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    flow = socket.socket(family, socket.SOCK_DGRAM)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    flow.bind((own, port))
    flow.setblocking(False)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    heard, sent, due = [], 0, time.monotonic()
    while not ended:
        now = time.monotonic()
        while due <= now:
            try:
                flow.sendto(struct.pack("!Q", sent) + PAYLOAD, (peer, port))
                sent += 1
            except (BlockingIOError, ConnectionRefusedError):
                pass  # The other end is not there yet.
            due += INTERVAL_SECONDS
        readable, _, _ = select.select([flow], [], [], max(0, due - time.monotonic()))
        if readable:
            receive(flow, heard)
    if not heard:
        print("heard nothing", flush=True)
        return
    distinct = set(heard)
    missing = sorted(set(range(min(heard), max(heard) + 1)) - distinct)
    print(
        f"heard {len(distinct)} missing {len(missing)} twice {len(heard) - len(distinct)}"
        f" first_missing {missing[:10]}",
        flush=True,
    )


def receive(flow, heard):
    while True:
        try:
            heard.append(struct.unpack_from("!Q", flow.recv(2048))[0])
        except (BlockingIOError, ConnectionRefusedError):
            return


main()

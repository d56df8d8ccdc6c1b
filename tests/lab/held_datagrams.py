"""Sends datagrams from one socket all the time, and tells what comes back to each.

Prints `SENT WHAT`: when it was sent, in seconds of CLOCK_MONOTONIC, and the answer, or `refused`, or `silence`.

Usage: held_datagrams.py ADDRESS PORT
"""

import socket
import sys
import time

INTERVAL_SECONDS = 0.03
PATIENCE_SECONDS = 2


def what_comes_back(flow):
    try:
        flow.send(b"who")
        return flow.recv(256).decode().strip()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as flow:
        flow.settimeout(PATIENCE_SECONDS)
        flow.connect((address, port))
        while True:
            sent = time.monotonic()
            print(f"{sent:.6f}", what_comes_back(flow), flush=True)
            time.sleep(INTERVAL_SECONDS)


main()

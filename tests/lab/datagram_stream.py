"""Datagrams that one end asks for once, and the other sends from then on.

datagram_stream.py send PORT               to everybody who has sent something to that port
datagram_stream.py receive ADDRESS PORT    asks once; prints how many came, at every tenth
"""

import select
import socket
import sys

INTERVAL_SECONDS = 0.01


def send(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", port))
        receivers = set()
        while True:
            if select.select([server], [], [], INTERVAL_SECONDS)[0]:
                try:
                    receivers.add(server.recvfrom(64)[1])
                except ConnectionRefusedError:
                    pass  # One of them is not there any more.
            for receiver in receivers:
                server.sendto(b"next", receiver)


def receive(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.send(b"begin")
        count = 0
        while True:
            client.recv(64)
            count += 1
            if count % 10 == 0:
                print(count, flush=True)


match sys.argv[1:]:
    case ["send", port]:
        send(int(port))
    case ["receive", address, port]:
        receive(address, int(port))
    case _:
        sys.exit(__doc__)

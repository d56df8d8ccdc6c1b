"""Flows of numbered datagrams, told apart by their source ports, and a judge of their order. The ports are the same
in each run, so that the flows are spread alike.

Usage: ordered_flows.py send PEER_ADDRESS PORT FLOWS DATAGRAMS
       ordered_flows.py receive PORT FLOWS DATAGRAMS

The sender sends so many of each flow, in turns. The receiver ends when it has all of them, or when two seconds
pass without one, and prints: received COUNT flows FLOWS overtaken COUNT missing COUNT
"""

import socket
import struct
import sys
import time

# A turn of all flows takes this long, so that no queue is full.
TURN_SECONDS = 0.002
SILENCE_SECONDS = 2
FIRST_DATAGRAM_SECONDS = 20
FIRST_SOURCE_PORT = 20000
PAYLOAD = bytes(600)


def send(peer, port, flows, datagrams):
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for number, flow in enumerate(sockets):
        flow.bind(("0.0.0.0", FIRST_SOURCE_PORT + number))
        flow.connect((peer, port))
    due = time.monotonic()
    for number in range(datagrams):
        for flow in sockets:
            flow.send(struct.pack("!I", number) + PAYLOAD)
        due += TURN_SECONDS
        time.sleep(max(0, due - time.monotonic()))


def receive(port, flows, datagrams):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.bind(("0.0.0.0", port))
    server.settimeout(FIRST_DATAGRAM_SECONDS)
    print("ready", flush=True)
    latest, received, overtaken = {}, 0, 0
    try:
        while received < flows * datagrams:
            datagram, sender = server.recvfrom(2048)
            server.settimeout(SILENCE_SECONDS)
            (number,) = struct.unpack_from("!I", datagram)
            overtaken += number < latest.get(sender, -1)
            latest[sender] = max(number, latest.get(sender, -1))
            received += 1
    except socket.timeout:
        pass
    missing = flows * datagrams - received
    print(f"received {received} flows {len(latest)} overtaken {overtaken} missing {missing}", flush=True)


def main():
    if sys.argv[1] == "send":
        send(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        receive(*map(int, sys.argv[2:5]))


main()

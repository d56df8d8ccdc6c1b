"""Several flows of numbered datagrams, which must come in their order.

numbered_flows.py receive ADDRESS PORT FLOWS SECONDS
                                       notes what comes; fails if a flow has none, or one out of its order, and prints
                                       how many came and how many are missing
numbered_flows.py send ADDRESS PORT FLOWS DATAGRAMS
                                       sends as many of each flow, of all of them in turn
"""

import socket
import struct
import sys
import time

# The flows' datagrams are spread over this time, so that none meets a full queue.
PAUSE_SECONDS = 0.001

# The same in every run, so that the same flows share a queue.
FIRST_SOURCE_PORT = 20000


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def send(address, port, flows, datagrams):
    sockets = [socket.socket(family(address), socket.SOCK_DGRAM) for _ in range(flows)]
    for flow, by in enumerate(sockets):
        by.bind(("::" if ":" in address else "0.0.0.0", FIRST_SOURCE_PORT + flow))
    for number in range(datagrams):
        for flow, by in enumerate(sockets):
            by.sendto(struct.pack("!II", flow, number) + bytes(64), (address, port))
        time.sleep(PAUSE_SECONDS)


def receive(address, port, flows, seconds):
    heard = {flow: [] for flow in range(flows)}
    with socket.socket(family(address), socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        server.bind((address, port))
        server.settimeout(0.2)
        print("listens", flush=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                flow, number = struct.unpack_from("!II", server.recv(2048))
            except TimeoutError:
                continue
            heard[flow].append(number)
    for flow, numbers in heard.items():
        if not numbers:
            sys.exit(f"flow {flow}: nothing came")
        if numbers != sorted(numbers):
            at = next(i for i in range(1, len(numbers)) if numbers[i] < numbers[i - 1])
            sys.exit(f"flow {flow}: {numbers[at]} came after {numbers[at - 1]}")
    came = sum(len(set(numbers)) for numbers in heard.values())
    missing = sum(max(numbers) + 1 for numbers in heard.values()) - came
    print(f"came {came} missing {missing}", flush=True)


match sys.argv[1:]:
    case ["send", address, port, flows, datagrams]:
        send(address, int(port), int(flows), int(datagrams))
    case ["receive", address, port, flows, seconds]:
        receive(address, int(port), int(flows), float(seconds))
    case _:
        sys.exit(__doc__)

"""A paced flow of numbered datagrams, and how long each was on its way.

The kernel stamps each when it enters the receiving stack, in the context of whoever delivers it: what
the receiving process waits for afterwards is no part of the time. Both ends run under SCHED_FIFO, so
that whatever else the machine does delays neither the stamp of the sender nor, for long, its pace.

Usage: scale_flow.py send ADDRESS PORT PER_SECOND
       scale_flow.py receive ADDRESS PORT FILE

Both end on SIGTERM. FILE then has, for each datagram, three integers of 64 bits: number, time of
sending, time under way; in nanoseconds.
"""

import array
import gc
import os
import signal
import socket
import struct
import sys
import time

SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
PAYLOAD = bytes(48)


def main():
    gc.disable()
    role, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10 if role == "send" else 11))
    except PermissionError:
        print("no SCHED_FIFO: the sender's own delays are part of the figures", flush=True)
    if role == "send":
        send(flow, (address, port), int(sys.argv[4]), ended)
    else:
        receive(flow, (address, port), sys.argv[4], ended)


def send(flow, to, per_second, ended):
    flow.connect(to)
    pack, now, clock = struct.Struct("!QQ").pack, time.time_ns, time.monotonic_ns
    number, interval = 0, 1_000_000_000 // per_second
    due = clock()
    while not ended:
        behind = clock() - due
        if behind < 0:
            time.sleep(-behind / 1e9)
            continue
        # Whoever was kept from sending goes on from here: no burst that would queue up.
        due = due + interval if behind < 20 * interval else clock() + interval
        try:
            flow.send(pack(number, now()) + PAYLOAD)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # Counted as lost.
        number += 1


def receive(flow, at, path, ended):
    flow.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    flow.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    flow.settimeout(0.2)
    flow.bind(at)
    heard = array.array("q")
    unpack, stamp = struct.Struct("!QQ").unpack_from, struct.Struct("qq").unpack_from
    while not ended:
        try:
            data, control, _, _ = flow.recvmsg(256, 64)
        except TimeoutError:
            continue
        number, sent = unpack(data)
        seconds, nanoseconds = stamp(control[0][2])
        heard.extend((number, sent, seconds * 1_000_000_000 + nanoseconds - sent))
    with open(path, "wb") as file:
        heard.tofile(file)


main()

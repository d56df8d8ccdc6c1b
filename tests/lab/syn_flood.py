"""Sends SYNs to one port, as fast as it can, each from the next of its ports.

They are made before and written to the interface as they are: the kernel of the sender knows of no connection, so
that it answers none and none is completed. Says `begins`, and at the end `sent SYNS in SECONDS s, RATE a second`.

Usage: syn_flood.py OWN_ADDRESS ADDRESS PORT SECONDS
"""

import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "lib"))
from soak_frames import with_sum

# The fixed address of every pod's gateway; what leaves a pod goes there.
GATEWAY_MAC = bytes.fromhex("027673000001")
FIRST_PORT, LAST_PORT = 1024, 65535


def syn(mac, source, destination, source_port, port):
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0x4000, 64, 6, 0, source, destination)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 7, 0, 5 << 4, 0x02, 65535, 0, 0)
    pseudo = source + destination + struct.pack("!BBH", 0, 6, len(tcp))
    return GATEWAY_MAC + mac + b"\x08\x00" + with_sum(ip, 10, ip) + with_sum(tcp, 16, pseudo + tcp)


def main():
    own, address, port, seconds = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        mac = wire.getsockname()[4]
        ends = socket.inet_aton(own), socket.inet_aton(address)
        frames = [syn(mac, *ends, source, int(port)) for source in range(FIRST_PORT, LAST_PORT + 1)]
        print("begins", flush=True)
        begin, sent = time.monotonic(), 0
        while time.monotonic() - begin < float(seconds):
            for _ in range(64):
                try:
                    wire.send(frames[sent % len(frames)])
                    sent += 1
                except OSError:
                    pass  # Its queue is full.
        took = time.monotonic() - begin
    print(f"sent {sent} in {took:.1f} s, {sent / took:.0f} a second", flush=True)


main()

"""Gives a daemon, or the kernel, so many routes, and prints {routes, seconds, bytes}.

Usage: fib.py daemon SOCKET PID COUNT     as peers of one source, in parts as long as a request may be
       fib.py kernel NAMESPACE COUNT      by `ip -batch`
       fib.py empty SOCKET                withdraws what `daemon` has given, and prints nothing

`seconds` are until every worker of the daemon forwards by all of them, or `ip` has ended; `bytes` what the
daemon's memory, or the kernel's, has grown by. The routes of both are alike: /32 of IPv4 as long as there are
addresses in the benchmarks' network, then /64 of IPv6.
"""

import json
import socket
import struct
import subprocess
import sys
import time

from control_socket import Client, Closed, encoded
from scale_step import kernel_kb, memory_kb

# Above the pods' own prefixes, to the end of 198.18.0.0/15.
FIRST4, COUNT4 = 0xC6121000, 126_976
# A peer has at most so many prefixes; so many peers make a request of some 3 MB.
EACH, PEERS = 256, 400
PATIENCE_SECONDS = 120
RECONNECTS = 5
SETTLING_SECONDS = 0.5


def prefixes(count):
    """IPv4 and IPv6 in the same parts, however many there are."""
    fours = count * COUNT4 // 1_000_000 if count > 10 else count
    for number in range(fours):
        yield f"{socket.inet_ntoa(struct.pack('!I', FIRST4 + number))}/32"
    for number in range(count - fours):
        yield f"fd00:18:{0x1000 + (number >> 16):x}:{number & 0xFFFF:x}::/64"


def requests(count):
    """Parts of one list of peers, each an encoded request."""
    every = list(prefixes(count))
    peers = [
        {
            "name": f"peer-{number}",
            "address": f"2001:db8:51::{number + 1:x}",
            "prefixes": every[number * EACH : (number + 1) * EACH],
        }
        for number in range((len(every) + EACH - 1) // EACH)
    ]
    for first in range(0, len(peers), PEERS):
        part = peers[first : first + PEERS]
        yield len(part), encoded(
            "sync-peers", {"source": "kubernetes", "complete": False, "peers": part, "gone": []}
        )


def daemon(path, pid, count):
    parts = list(requests(int(count)))
    before, began = memory_kb(pid, "VmRSS"), time.monotonic()
    for _, body in parts:
        if refused := sent(path, body):
            sys.exit(f"routes are refused: {str(refused)[:300]}")
    wait_until_forwards(Client(path), sum(peers for peers, _ in parts))
    seconds = time.monotonic() - began
    time.sleep(SETTLING_SECONDS)
    tell(count, seconds, (memory_kb(pid, "VmRSS") - before) * 1024)


def sent(path, body):
    """As an agent sends it: a daemon that closes the connection is asked once more, by another one."""
    for _ in range(RECONNECTS):
        try:
            return Client(path).send("sync-peers", body)
        except (Closed, ConnectionError) as error:
            last = error
    sys.exit(f"sync-peers: {last}, {RECONNECTS} times")


def empty(path):
    sent(path, encoded("sync-peers", {"source": "kubernetes", "complete": True, "peers": [], "gone": []}))
    wait_until_forwards(Client(path), 0)


def wait_until_forwards(client, peers):
    began = time.monotonic()
    while not forwards(client.ask("status"), peers):
        if time.monotonic() > began + PATIENCE_SECONDS:
            sys.exit(f"{peers} peers are not in force after {PATIENCE_SECONDS} s")
        time.sleep(0.01)


def forwards(status, peers):
    return status["peers"] == peers and all(worker["epoch"] >= status["epoch"] for worker in status["workers"])


def kernel(namespace, count):
    lines = "".join(f"route add {prefix} dev eth0\n" for prefix in prefixes(int(count)))
    before, began = kernel_kb(), time.monotonic()
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=lines.encode(), check=True)
    seconds = time.monotonic() - began
    tell(count, seconds, (kernel_kb() - before) * 1024)


def tell(count, seconds, grown):
    print(json.dumps({"routes": int(count), "seconds": seconds, "bytes": max(0, grown)}))


if __name__ == "__main__":
    {"daemon": daemon, "kernel": kernel, "empty": empty}[sys.argv[1]](*sys.argv[2:])

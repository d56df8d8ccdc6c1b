"""Measures at which rate a flow arrives, in bits of frames from their Ethernet header on.

`send` sends until SECONDS have passed: over TCP as fast as it can, with 10 ms of RATE in its socket, over UDP
numbered datagrams at RATE bits of frames a second; it prints the rate that it reached. `serve` measures what
arrives, by IPv4 or IPv6: from WARM seconds after the first bytes on, for SECONDS. It prints `rate BITS_PER_SECOND lost DATAGRAMS`, the datagrams that are
missing between the first and the last that it got. `burst` sends so many datagrams as fast as it can, and
`count` prints how many of those arrived, once none has for SECONDS.

Usage: rate_flow.py serve udp|tcp PORT WARM SECONDS
       rate_flow.py send udp|tcp ADDRESS PORT SECONDS RATE
       rate_flow.py burst ADDRESS PORT COUNT
       rate_flow.py count PORT SECONDS
"""

import socket
import struct
import sys
import time

UDP_PAYLOAD_BYTES = 1400
ETHERNET_BYTES = 14
IP_BYTES = {socket.AF_INET: 20, socket.AF_INET6: 40}
UDP_BYTES = 8
# With timestamps.
TCP_BYTES = 20 + 12
PATIENCE_SECONDS = 20
SHORTEST_SLEEP_SECONDS = 0.001


class Window:
    """What arrives after a warm-up: the first arrival begins it, and its bytes count no more."""

    def __init__(self, warm, seconds):
        self.warm, self.seconds = warm, seconds
        self.first = self.begin = self.last = None
        self.count = 0

    def add(self, frame_bytes):
        """Whether more is to be measured."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
        if now - self.first < self.warm:
            return True
        if self.begin is None:
            self.begin = now
            return True
        self.count += frame_bytes
        self.last = now
        return now - self.begin < self.seconds

    def rate(self):
        return round(8 * self.count / (self.last - self.begin))


def family_of(address):
    """Of an address as the kernel tells it, or as somebody writes it."""
    return socket.AF_INET6 if ":" in address and not address.startswith("::ffff:") else socket.AF_INET


def udp_header_bytes(address):
    return ETHERNET_BYTES + IP_BYTES[family_of(address)] + UDP_BYTES


def serve_udp(port, window):
    flow = udp(port)
    numbers = []
    while True:
        data, client = flow.recvfrom(2048)
        numbers.append(struct.unpack_from("!Q", data)[0])
        if not window.add(len(data) + udp_header_bytes(client[0])):
            break
    lost = max(numbers) - min(numbers) + 1 - len(set(numbers))
    print("rate", window.rate(), "lost", lost, flush=True)


def serve_tcp(port, window):
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    listener.settimeout(PATIENCE_SECONDS)
    stream, client = listener.accept()
    stream.settimeout(PATIENCE_SECONDS)
    mss = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    header_bytes = ETHERNET_BYTES + IP_BYTES[family_of(client[0])] + TCP_BYTES
    while True:
        data = stream.recv(1 << 16)
        if not data:
            sys.exit("the sender ended before the time was over")
        if not window.add(len(data) * (mss + header_bytes) / mss):
            break
    print("rate", window.rate(), "lost 0", flush=True)


def send_udp(address, port, seconds, rate):
    flow = socket.socket(family_of(address), socket.SOCK_DGRAM)
    flow.connect((address, port))
    frame_bits = 8 * (UDP_PAYLOAD_BYTES + udp_header_bytes(address))
    interval = frame_bits / rate
    begin = due = time.monotonic()
    sent = 0
    while due - begin < seconds:
        number = struct.pack("!Q", sent)
        try:
            flow.send(number + bytes(UDP_PAYLOAD_BYTES - len(number)))
            sent += 1
        except ConnectionRefusedError:
            pass  # The other end has all that it wanted.
        due += interval
        ahead = due - time.monotonic()
        # To give the CPU away after each would cost more than to send it.
        if ahead > SHORTEST_SLEEP_SECONDS:
            time.sleep(ahead)
    print("sent", round(sent * frame_bits / (time.monotonic() - begin)), flush=True)


def send_tcp(address, port, seconds, rate):
    stream = socket.create_connection((address, port), timeout=PATIENCE_SECONDS)
    # A superframe, which arrives at once, is not to be a large part of what is measured.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(1 << 13, int(rate / 8 / 100)))
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            stream.sendall(bytes(1 << 14))
    except OSError:
        pass  # The other end has all that it wanted.


def burst(address, port, count):
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(count):
        flow.sendto(struct.pack("!Q", number) + bytes(UDP_PAYLOAD_BYTES - 8), (address, port))


def count(port, seconds):
    flow = udp(port)
    numbers = set()
    try:
        while True:
            numbers.add(struct.unpack_from("!Q", flow.recv(2048))[0])
            flow.settimeout(seconds)
    except TimeoutError:
        print("arrived", len(numbers), flush=True)


def udp(port):
    flow = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    flow.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    flow.bind(("", port))
    flow.settimeout(PATIENCE_SECONDS)
    return flow


def main():
    match sys.argv[1:]:
        case ["serve", protocol, port, warm, seconds]:
            serve = serve_udp if protocol == "udp" else serve_tcp
            serve(int(port), Window(float(warm), float(seconds)))
        case ["send", "udp", address, port, seconds, rate]:
            send_udp(address, int(port), float(seconds), float(rate))
        case ["send", "tcp", address, port, seconds, rate]:
            send_tcp(address, int(port), float(seconds), float(rate))
        case ["burst", address, port, number]:
            burst(address, int(port), int(number))
        case ["count", port, seconds]:
            count(int(port), float(seconds))
        case _:
            sys.exit(__doc__)


main()

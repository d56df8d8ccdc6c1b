"""Every size of packet from one address to another: each arrives, or its sender learns the length
that passes.

    size_sweep.py serve ADDRESS PORT
        takes datagrams and answers `SIZE…` lists of what came; echoes what comes by TCP
    size_sweep.py send OWN PEER PORT LARGEST WAY_MTU
        sends IP packets of every size up to LARGEST by UDP (not to be fragmented, and over IPv4 also
        such as may be), ICMP and TCP, over a way that takes WAY_MTU bytes; prints what is wrong, and
        fails if anything is

The sender's interface has to take LARGEST, so that sizes beyond the way's MTU leave it.
"""

import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

# linux/in.h, linux/in6.h, linux/errqueue.h; the socket module does not have all of them.
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE, IP_RECVERR = 10, 0, 3, 11
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE, IPV6_RECVERR, IPV6_DONTFRAG = 23, 3, 25, 62
ICMP_ECHO, ICMPV6_ECHO = 8, 128

# A round sends what has neither arrived nor been answered; errors are limited in their rate, so that
# it takes several.
ROUNDS = 60
ROUND_SECONDS = 0.15
TCP_SECONDS = 60


def is_v6(address):
    return ":" in address


def family_of(address):
    return socket.AF_INET6 if is_v6(address) else socket.AF_INET


def serve(address, port):
    family = family_of(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(8)
    threading.Thread(target=echo_all, args=(listener,), daemon=True).start()
    control = socket.socket(family, socket.SOCK_STREAM)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    control.bind((address, port + 1))
    control.listen(8)
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    datagrams.bind((address, port))
    came = set()
    lines = None
    while True:
        waiting = [datagrams, control] + ([lines] if lines else [])
        for ready in select.select(waiting, [], [])[0]:
            if ready is datagrams:
                data = datagrams.recv(65535)
                # The content is the size, over and over.
                if data == pattern(len(data)):
                    came.add(len(data))
            elif ready is control:
                lines = control.accept()[0]
            else:
                word = lines.recv(1)
                if word == b"c":
                    came.clear()
                    lines.sendall(b"\n")
                elif word == b"l":
                    lines.sendall(json.dumps(sorted(came)).encode() + b"\n")
                else:
                    lines.close()
                    lines = None


def echo_all(listener):
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def echo(stream):
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := stream.recv(65536):
        stream.sendall(data)


def pattern(size):
    return (struct.pack("!H", size & 0xFFFF) * (size // 2 + 1))[:size]


class Control:
    def __init__(self, peer, port):
        self.stream = socket.create_connection((peer, port + 1), timeout=10)
        # Beside the sizes under test, not one of them.
        self.file = self.stream.makefile("rb")

    def clear(self):
        self.stream.sendall(b"c")
        self.file.readline()

    def came(self):
        self.stream.sendall(b"l")
        return set(json.loads(self.file.readline()))


def probing(sock, v6, may_be_cut=False):
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        how = IP_PMTUDISC_DONT if may_be_cut else IP_PMTUDISC_PROBE
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.setblocking(False)
    return sock


def errors(sock, told, size_of):
    """Takes the too-big errors that came: told[size] = the MTU in it."""
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(65535, 512, socket.MSG_ERRQUEUE)
        except (BlockingIOError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EAGAIN, errno.EMSGSIZE):
                raise
            return
        for _, kind, content in ancillary:
            if kind in (IP_RECVERR, IPV6_RECVERR):
                number, _, _, _, _, mtu, _ = struct.unpack_from("=IBBBBII", content)
                if number == errno.EMSGSIZE and len(data) >= 8:
                    told[size_of(data)] = mtu


def send(sock, data, target):
    """The kernel says EMSGSIZE for an earlier error too: then again."""
    for _ in range(100):
        try:
            sock.sendto(data, target)
            return
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                select.select([], [sock], [], 0.1)
            elif error.errno != errno.EMSGSIZE:
                raise
    raise RuntimeError(f"{len(data)} bytes cannot be sent")


def udp(own, peer, port, largest, control, may_be_cut=False):
    v6 = is_v6(own)
    headers = 48 if v6 else 28
    sock = probing(socket.socket(family_of(own), socket.SOCK_DGRAM), v6, may_be_cut)
    sock.bind((own, 0))
    control.clear()
    told, came = {}, set()
    sizes = range(1, largest - headers + 1)
    size_of = lambda data: struct.unpack_from("!H", data)[0]
    for _ in range(ROUNDS):
        open_ones = [size for size in sizes if size not in came and size not in told]
        if not open_ones:
            break
        for size in open_ones:
            send(sock, pattern(size), (peer, port))
            errors(sock, told, size_of)
        wait(sock, lambda: errors(sock, told, size_of))
        came = control.came()
    return verdict(sizes, came, told, headers)


def icmp(own, peer, largest):
    v6 = is_v6(own)
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    headers = 48 if v6 else 28
    sock = probing(socket.socket(family_of(own), socket.SOCK_RAW, protocol), v6)
    sock.bind((own, 0))
    ident = os.getpid() & 0xFFFF
    told, came = {}, set()
    sizes = range(1, largest - headers + 1)

    def size_of(data):
        # A raw IPv4 socket's errors begin with the ICMP header, an IPv6 one's too.
        return struct.unpack_from("!H", data, 6)[0]

    def take():
        errors(sock, told, size_of)
        while True:
            try:
                data = sock.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    continue
                raise
            if not v6:
                data = data[(data[0] & 15) * 4 :]
            kind, got, size = data[0], *struct.unpack_from("!HH", data, 4)
            if kind in (0, 129) and got == ident and data[8:] == pattern(size):
                came.add(size)

    for _ in range(ROUNDS):
        open_ones = [size for size in sizes if size not in came and size not in told]
        if not open_ones:
            break
        for size in open_ones:
            send(sock, echo_request(v6, ident, size), (peer, 0))
            take()
        wait(sock, take)
    return verdict(sizes, came, told, headers)


def echo_request(v6, ident, size):
    message = struct.pack("!BBHHH", ICMPV6_ECHO if v6 else ICMP_ECHO, 0, 0, ident, size) + pattern(size)
    if v6:
        return message  # The kernel knows the pseudo-header.
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


def wait(sock, take):
    until = time.monotonic() + ROUND_SECONDS
    while (left := until - time.monotonic()) > 0:
        select.select([sock], [], [sock], left)
        take()


def tcp(own, peer, port, largest):
    """Each size by itself and back again; a segment that is lost for good stalls."""
    stream = socket.create_connection((peer, port), timeout=10, source_address=(own, 0))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.settimeout(5)
    begin = time.monotonic()
    for size in range(1, largest + 1):
        stream.sendall(pattern(size))
        back = b""
        while len(back) < size:
            try:
                part = stream.recv(size - len(back))
            except TimeoutError:
                return [f"{size} bytes did not come back within five seconds"]
            if not part:
                return [f"the connection ended at {size} bytes"]
            back += part
        if back != pattern(size):
            return [f"{size} bytes came back damaged"]
        if time.monotonic() - begin > TCP_SECONDS:
            return [f"only sizes up to {size} within {TCP_SECONDS} seconds"]
    return []


def verdict(sizes, came, told, headers):
    """Both for one size is a contradiction, neither a black hole."""
    wrong = []
    for size in sizes:
        packet, mtu = size + headers, told.get(size)
        if size in came:
            if mtu is not None and packet <= mtu:
                wrong.append(f"{packet} bytes arrived, and yet {mtu} are said to be the most")
        elif mtu is None:
            wrong.append(f"{packet} bytes vanished")
        elif mtu != WAY_MTU or packet <= mtu:
            wrong.append(f"{packet} bytes were answered with {mtu}, not {WAY_MTU}")
    return wrong


def main():
    global WAY_MTU
    if sys.argv[1] == "serve":
        return serve(sys.argv[2], int(sys.argv[3]))
    own, peer, port = sys.argv[2], sys.argv[3], int(sys.argv[4])
    largest, WAY_MTU = int(sys.argv[5]), int(sys.argv[6])
    control = Control(peer, port)
    tests = {
        "UDP": lambda: udp(own, peer, port, largest, control),
        "ICMP": lambda: icmp(own, peer, largest),
        "TCP": lambda: tcp(own, peer, port, largest),
    }
    if not is_v6(own):
        tests["UDP that may be cut"] = lambda: udp(own, peer, port, largest, control, True)
    bad = False
    for name, test in tests.items():
        wrong = test()
        bad |= bool(wrong)
        if wrong:
            print(f"{name}: {len(wrong)} of {largest}: {'; '.join(wrong[:4])}")
    return int(bad)


sys.exit(main())

"""What clients of the control socket do that mean harm.

Enters: the socket's path, how many, and whether to end. Leaves: what became of them, by name. soak_clients.py
runs each in a process of its own. A message is four bytes of length, big endian, and JSON: see api/src/codec.rs.
"""

import collections
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import tempfile
import time

from bench.control_socket import encoded

# An answer takes that long at most, whatever the machine does besides.
ANSWER_S = 30
# api::MAX_REQUEST_BYTES.
LARGEST_BYTES = 4 << 20
# Between two bytes of a client that drips, and until one that was sent away comes again.
DRIP_S, AGAIN_S = 0.3, 1.0
# Clients that ask nothing make room for others after a second; until then an ADD is to be tried again.
IDLE_S = 1.5
PR_SET_PDEATHSIG = 1
# The kernel passes no more at once: SCM_MAX_FD.
MOST_DESCRIPTORS = 253

ATTACHMENT = {"container_id": "soak-bad-client", "ifname": "eth0"}
MAC = "02:00:00:00:00:01"
# Requests that change nothing, whole or with other bytes in them: none of such a pod, route or port exists.
REQUESTS = (
    ("status", None),
    ("show-ports", None),
    ("show-fdb", None),
    ("show-fib", None),
    ("show-neighbors", None),
    ("show-peers", None),
    ("show-drops", None),
    ("show-latency", {"by_port": True}),
    ("show-services", None),
    ("show-sessions", {"most": 4}),
    ("detach", ATTACHMENT),
    ("attach", {"attachment": ATTACHMENT, "mac": MAC}),
    ("check", {"attachment": ATTACHMENT, "addresses": ["198.18.1.77"], "mac": MAC}),
    ("adjusted", {"attachment": ATTACHMENT, "mtu": 1400}),
    ("delete-fdb", {"bridge": "none", "mac": MAC}),
    ("delete-route", "203.0.113.0/24"),
    ("sync-peers", {"source": "kubernetes", "complete": False, "peers": [], "gone": ["none"]}),
    (
        "trace",
        {"port": "eth0", "dst": "198.18.1.77", "protocol": "udp", "len": 64, "ttl": 64, "df": False},
    ),
)


def begin(kind, arguments, begins, ends, told):
    """The process of one kind. Its session has no part in what is measured, and it ends with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    told.send(kind(*arguments, begins, ends))


def connection(path):
    client = socket.socket(socket.AF_UNIX)
    # With a timeout it would fail where many wait to be accepted.
    client.connect(path)
    client.settimeout(ANSWER_S)
    return client


def outcome(client):
    """What the daemon does with it: an answer, or the end of the connection."""
    try:
        data = client.recv(4, socket.MSG_WAITALL)
        if len(data) < 4:
            return "closed"
        length = struct.unpack("!I", data)[0]
        body = b""
        while len(body) < length:
            part = client.recv(length - len(body))
            if not part:
                return "cut_off"
            body += part
        answer = json.loads(body)["message"]
        return "taken" if "Ok" in answer else "refused"
    except TimeoutError:
        return "unanswered"
    except OSError:
        return "closed"


def send_some(client, data):
    """What the daemon still takes: it may close while there is more."""
    try:
        client.sendall(data)
    except OSError:
        pass


def messages(path, count, begins, _):
    """Bytes in a length, requests with other bytes, such as end too early, and such as are behind others."""
    chance = random.Random(count)
    found = collections.Counter()
    begins.set()
    for _ in range(count):
        client = connection(path)
        what = chance.choice((noise, mutated, mutated, nested, cut_short, behind_another))
        data, is_whole = what(chance)
        send_some(client, data)
        if not is_whole:
            client.shutdown(socket.SHUT_WR)
        end = outcome(client)
        # Who ends amid a request has no answer to expect.
        found["ended_amid" if end == "closed" and not is_whole else end] += 1
        client.close()
    return found


def framed(body):
    return struct.pack("!I", len(body)) + body


def noise(chance):
    return framed(chance.randbytes(chance.randrange(2048))), True


def mutated(chance):
    body = bytearray(encoded(*chance.choice(REQUESTS))[4:])
    for _ in range(chance.randrange(1, 8)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    return framed(bytes(body)), True


def nested(chance):
    depth = chance.randrange(1, 20000)
    return framed(b'{"version": 1, "message": ' + b"[" * depth + b"]" * depth + b"}"), True


def cut_short(chance):
    whole = encoded(*chance.choice(REQUESTS))
    return whole[: chance.randrange(len(whole))], False


def behind_another(chance):
    return encoded("status") + mutated(chance)[0], True


def idle(path, count, begins, ends):
    clients = [connection(path) for _ in range(count)]
    time.sleep(IDLE_S)
    begins.set()
    ends.wait()
    found = collections.Counter()
    for client in clients:
        client.setblocking(False)
        try:
            found["refused" if client.recv(4096) else "closed"] += 1
        except BlockingIOError:
            found["kept"] += 1
        except OSError:
            found["closed"] += 1
        client.close()
    return found


def dripping(path, count, begins, ends):
    # So long that it never ends.
    request = framed(bytes(LARGEST_BYTES // 64))
    found = collections.Counter()
    drips = [[connection(path), 0, 0.0] for _ in range(count)]
    begun = time.monotonic()
    while not ends.wait(0.02):
        now = time.monotonic()
        for drip in drips:
            client, sent, due = drip
            if now < due:
                continue
            drip[2] = now + DRIP_S
            if client is None:
                drip[:2] = connection(path), 0
                continue
            try:
                client.send(request[sent : sent + 1])
                drip[1] += 1
                found["bytes"] += 1
            except OSError:
                client.close()
                found["sent_away"] += 1
                drip[:] = None, 0, now + AGAIN_S
        if now - begun > IDLE_S:
            begins.set()
    for client, _, _ in drips:
        if client is not None:
            client.close()
    return found


def lengths(path, count, begins, _):
    found = collections.Counter()
    begins.set()
    for number in range(count):
        client = connection(path)
        length = (0xFFFFFFFF, 0x80000000, LARGEST_BYTES + 1)[number % 3]
        send_some(client, struct.pack("!I", length) + bytes(65536))
        found[outcome(client)] += 1
        client.close()
    return found


def strangers(path, count, user, begins, _):
    """Clients of another user: it may look up neither the socket's directory nor what is above it."""
    os.chdir(os.path.dirname(path))
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    found = collections.Counter()
    begins.set()
    for _ in range(count):
        client = connection(os.path.basename(path))
        found[outcome(client)] += 1
        client.close()
    return found


def descriptors(path, count, begins, _):
    """Requests with descriptors that are no interface's, or with more than a request has, or without the rest of
    the request."""
    found = collections.Counter()
    chance = random.Random(count)
    attach = encoded("attach", {"attachment": ATTACHMENT, "mac": MAC})
    reading, writing = os.pipe()
    pair = socket.socketpair()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    readiness = select.epoll()
    with tempfile.TemporaryFile() as file, open("/dev/null", "rb") as null:
        kinds = [reading, writing, pair[0].fileno(), datagrams.fileno(), readiness.fileno()]
        kinds += [file.fileno(), null.fileno(), os.open("/dev/net/tun", os.O_RDWR)]
        begins.set()
        for number in range(count):
            client = connection(path)
            # Its own connection is a kind, too.
            some = chance.choices(kinds + [client.fileno()], k=(1, 2, 9, 10, 17, MOST_DESCRIPTORS)[number % 6])
            request, is_whole = (
                (attach, True),
                (encoded("status"), True),
                (attach[:-1], False),
            )[number // 6 % 3]
            try:
                socket.send_fds(client, [request], some)
            except OSError as error:
                sys.exit(f"descriptors cannot be sent: {error}")
            if not is_whole:
                client.shutdown(socket.SHUT_WR)
            end = outcome(client)
            # The status is told, whatever came with the question.
            found["answered" if request != attach and end == "taken" else end] += 1
            client.close()
    return found


for endless in (idle, dripping):
    endless.is_endless = True
for finite in (messages, lengths, strangers, descriptors):
    finite.is_endless = False

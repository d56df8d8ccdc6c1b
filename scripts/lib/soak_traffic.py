"""Traffic between the pods of a node, and what became of it at each of several moments.

Usage: soak_traffic.py run PODS CONNECTIONS RESULT
       soak_traffic.py report RESULT MOMENTS

PODS has a line `NAMESPACE ADDRESS` for each pod, two at least. Until SIGTERM there are:
- ten numbered datagrams a second from each pod to the next one;
- a probe: a thousand numbered datagrams a second from the first pod to the second, each answered;
- CONNECTIONS TCP connections, an exchange on each every 50 ms.
RESULT then has what was lost, every long gap between two answers of the probe, every long exchange
and when the carrier of the probe's two pods came back. MOMENTS has a line for each moment at which
something was done to the daemon, in seconds since the epoch; `report` prints one JSON object.

One process holds the sockets of all pods. It runs under SCHED_FIFO, so that what else the machine does
is no part of the figures; by how much it was late itself is one of them.
"""

import gc
import heapq
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

import soak_namespaces as namespaces

DATAGRAM_S, PROBE_S, EXCHANGE_S = 0.1, 0.001, 0.05
DATAGRAM_PORT, PROBE_PORT, TCP_PORT = 7100, 7101, 7102
# Shorter gaps of the probe, and quicker exchanges, are not worth a line.
LONG_GAP_S, LONG_EXCHANGE_S = 0.004, 0.1
# What waits in a queue comes within this time.
PATIENCE_S = 3.0
# An effect of a moment begins within this time of it.
WINDOW_S = 1.4
NUMBER = struct.Struct("!IQ")
PADDING = bytes(52)
IFF_LOWER_UP = 0x10000
RTM_NEWLINK = 16
RTMGRP_LINK = 1


class Traffic:
    def __init__(self, pods, connections):
        self.selector = selectors.DefaultSelector()
        self.due = []
        self.order = 0
        self.sending = True
        self.late = 0.0
        self.sent = [0] * len(pods)
        self.heard = [set() for _ in pods]
        self.twice = 0
        self.probes_sent = []
        self.probes_answered = set()
        self.last_answer = None
        self.gaps = []
        self.carrier = []
        self.exchanges = 0
        self.stalls = []
        self.broken = []
        self.datagrams(pods)
        self.probe(pods)
        for number in range(connections):
            self.connection(number, pods)

    # Datagrams from each pod to the next.
    def datagrams(self, pods):
        sockets = [self.udp(pod, DATAGRAM_PORT) for pod in pods]
        for index, own in enumerate(sockets):
            self.watch(own, lambda own=own, index=index: self.hear_datagrams(own, index))
            to = (pods[(index + 1) % len(pods)][1], DATAGRAM_PORT)
            self.at(DATAGRAM_S * index / len(pods), self.send_datagram, own, to, index)

    def send_datagram(self, when, own, to, index):
        try:
            own.sendto(NUMBER.pack(index, self.sent[index]) + PADDING, to)
        except (BlockingIOError, ConnectionRefusedError, OSError):
            pass  # Counted as lost.
        self.sent[index] += 1
        self.again(when + DATAGRAM_S, self.send_datagram, own, to, index)

    def hear_datagrams(self, own, _):
        for data, _ in received(own):
            index, number = NUMBER.unpack_from(data)
            if number in self.heard[index]:
                self.twice += 1
            self.heard[index].add(number)

    # The probe.
    def probe(self, pods):
        asking, answering = self.udp(pods[0], PROBE_PORT), self.udp(pods[1], PROBE_PORT)
        self.watch(answering, lambda: self.answer(answering))
        self.watch(asking, lambda: self.hear_answers(asking))
        self.at(0.0, self.ask, asking, (pods[1][1], PROBE_PORT))
        for namespace, _ in pods[:2]:
            with namespaces.inside(namespace):
                links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                links.bind((0, RTMGRP_LINK))
            self.watch(links, lambda links=links, namespace=namespace: self.link(links, namespace))

    def ask(self, when, own, to):
        try:
            own.sendto(NUMBER.pack(0, len(self.probes_sent)) + PADDING, to)
        except (BlockingIOError, ConnectionRefusedError, OSError):
            pass
        self.probes_sent.append(time.time())
        self.again(when + PROBE_S, self.ask, own, to)

    @staticmethod
    def answer(own):
        for data, sender in received(own):
            try:
                own.sendto(data, sender)
            except (BlockingIOError, ConnectionRefusedError, OSError):
                pass

    def hear_answers(self, own):
        for data, _ in received(own):
            now = time.time()
            if self.last_answer is not None and now - self.last_answer > LONG_GAP_S:
                self.gaps.append((self.last_answer, now))
            self.last_answer = now
            self.probes_answered.add(NUMBER.unpack_from(data)[1])

    def link(self, links, namespace):
        data = links.recv(65536)
        kind, flags = struct.unpack_from("=4xH", data)[0], struct.unpack_from("=I", data, 24)[0]
        if kind == RTM_NEWLINK:
            self.carrier.append((time.time(), namespace, bool(flags & IFF_LOWER_UP)))

    # Connections.
    def connection(self, number, pods):
        here, there = pods[number % len(pods)], pods[(number + len(pods) // 2) % len(pods)]
        if here == there:
            there = pods[(number + 1) % len(pods)]
        with namespaces.inside(there[0]):
            listener = socket.create_server((there[1], TCP_PORT + number))
        with namespaces.inside(here[0]):
            client = socket.create_connection((there[1], TCP_PORT + number), timeout=5)
        server, _ = listener.accept()
        listener.close()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = {"number": number, "count": 0, "asked": 0.0, "client": client}
        self.watch(server, lambda: self.echo(server, state))
        self.watch(client, lambda: self.exchanged(client, state))
        self.at(EXCHANGE_S * number / 20, self.exchange, client, state)

    def exchange(self, _, client, state):
        state["asked"] = time.time()
        try:
            client.send(NUMBER.pack(state["number"], state["count"]))
        except OSError as error:
            self.breaks(client, state, error)

    def echo(self, server, state):
        try:
            data = server.recv(4096)
            if data:
                server.send(data)
            else:
                self.breaks(server, state, "the other end closed it")
        except OSError as error:
            self.breaks(server, state, error)

    def exchanged(self, client, state):
        try:
            data = client.recv(4096)
        except OSError as error:
            return self.breaks(client, state, error)
        if data != NUMBER.pack(state["number"], state["count"]):
            return self.breaks(client, state, "an answer that was not asked for")
        now = time.time()
        if now - state["asked"] > LONG_EXCHANGE_S:
            self.stalls.append((state["asked"], now))
        self.exchanges += 1
        state["count"] += 1
        if self.sending:
            self.at(EXCHANGE_S, self.exchange, client, state)
        else:
            state["ended"] = True

    def breaks(self, end, state, error):
        if not state.get("ended"):
            self.broken.append(f"connection {state['number']}: {error}")
        state["ended"] = True
        self.selector.unregister(end)

    # The loop.
    def udp(self, pod, port):
        with namespaces.inside(pod[0]):
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        own.bind((pod[1], port))
        return own

    def watch(self, own, action):
        self.selector.register(own, selectors.EVENT_READ, action)

    def at(self, seconds, action, *arguments):
        self.schedule(time.monotonic() + seconds, action, arguments)

    def again(self, when, action, *arguments):
        if self.sending:
            self.schedule(when, action, arguments)

    def schedule(self, when, action, arguments):
        self.order += 1
        heapq.heappush(self.due, (when, self.order, action, arguments))

    def turn(self):
        while self.due and self.due[0][0] <= time.monotonic():
            when, _, action, arguments = heapq.heappop(self.due)
            self.late = max(self.late, time.monotonic() - when)
            if self.sending:
                action(when, *arguments)
            # Answers are not to wait for a long row of things to send.
            if len(self.due) % 16 == 0:
                break
        wait = max(0.0, self.due[0][0] - time.monotonic()) if self.due else 0.05
        for key, _ in self.selector.select(min(wait, 0.05)):
            key.data()

    def result(self):
        answered = self.probes_answered
        return {
            "datagrams": sum(self.sent),
            "datagrams_lost": sum(self.sent) - sum(len(numbers) for numbers in self.heard),
            "datagrams_twice": self.twice,
            "probes": len(self.probes_sent),
            "probes_lost": [
                when for number, when in enumerate(self.probes_sent) if number not in answered
            ],
            "gaps": self.gaps,
            "carrier": self.carrier,
            "exchanges": self.exchanges,
            "stalls": self.stalls,
            "broken": self.broken,
            "late_ms": round(self.late * 1000, 1),
        }


def received(own):
    while True:
        try:
            yield own.recvfrom(2048)
        except (BlockingIOError, ConnectionRefusedError):
            return


def run(pods_file, connections, result_file):
    gc.disable()
    with open(pods_file, encoding="ascii") as lines:
        pods = [tuple(line.split()) for line in lines]
    traffic = Traffic(pods, connections)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        print("no SCHED_FIFO: the delays of this process are part of the figures", flush=True)
    print("all flows run", flush=True)
    while not ended:
        traffic.turn()
    traffic.sending = False
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        traffic.turn()
    with open(result_file, "w", encoding="ascii") as file:
        json.dump(traffic.result(), file)


def report(result_file, moments_file):
    with open(result_file, encoding="ascii") as file:
        result = json.load(file)
    with open(moments_file, encoding="ascii") as file:
        moments = [float(line) for line in file]
    effects = [effect(result, when, following(moments, index)) for index, when in enumerate(moments)]
    outages = sorted(one["outage_ms"] for one in effects)
    # Away from all moments: what the machine does by itself.
    quiet = [
        end - begin
        for begin, end in result["gaps"]
        if not any(when - 0.1 < end and begin < when + WINDOW_S for when in moments)
    ]
    print(
        json.dumps(
            {
                "moments": effects,
                "outage_p50_ms": percentile(outages, 50),
                "outage_p99_ms": percentile(outages, 99),
                "quiet_ms": milliseconds(max(quiet, default=0)),
                "datagrams": result["datagrams"] + result["probes"],
                "datagrams_lost": result["datagrams_lost"] + len(result["probes_lost"]),
                "exchanges": result["exchanges"],
                "stall_ms": milliseconds(max((end - begin for begin, end in result["stalls"]), default=0)),
                "broken": result["broken"],
                "late_ms": result["late_ms"],
            }
        )
    )


def following(moments, index):
    return moments[index + 1] if index + 1 < len(moments) else moments[index] + 60


def effect(result, when, following_moment):
    until = min(when + WINDOW_S, following_moment)
    gaps = [end - begin for begin, end in result["gaps"] if end > when and begin < until]
    # Of each of the probe's pods the last time that the carrier came back.
    back = {}
    for moment, namespace, is_up in result["carrier"]:
        if is_up and when < moment < following_moment:
            back[namespace] = moment
    return {
        "outage_ms": milliseconds(max(gaps, default=0)),
        "downtime_ms": milliseconds(max(back.values(), default=when) - when),
        "lost": sum(when - 0.1 < sent < following_moment - 0.1 for sent in result["probes_lost"]),
    }


def milliseconds(seconds):
    return round(seconds * 1000, 1)


def percentile(ordered, percent):
    """The nearest rank."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        report(sys.argv[2], sys.argv[3])

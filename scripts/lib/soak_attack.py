"""Sends forged frames, as fast as the switch takes them, and finds what became of each.

Usage: soak_attack.py pod SOCKET COUNT PORT ATTACKER VICTIM OTHER NODE PEER [--bridged]
       soak_attack.py underlay SOCKET COUNT PORT ATTACKER VICTIM OTHER NODE PEER --peer-pod ADDRESS
                      --stranger ADDRESS --vni VNI

It runs in the node's network namespace. ATTACKER, VICTIM and OTHER are namespaces: of pods; of a host of the
underlay that attacks, where it is `underlay`. PORT is the switch's port by which the frames come, NODE and PEER
underlay addresses: of this node, and of one that it knows. The kinds of forgeries take turns. Frames that have
been sent and are counted nowhere yet are never more than a few hundred, so that no queue overflows and each is
accounted for, whatever else the machine does.

Prints one JSON object: what was sent, what was counted, under which reasons, and how many frames came out: at the
interfaces of VICTIM and OTHER, or towards the node's kernel.
"""

import argparse
import collections
import contextlib
import errno
import itertools
import json
import socket
import sys
import time

import soak_forgeries as forgeries
import soak_namespaces as namespaces
from bench.control_socket import Client
from soak_forgeries import End, GATEWAY_MAC
from soak_frames import MARK

# Twice so many may be under way: a pod's interface queues 8,192, a veth's ring between two hosts has 256 places.
POD_BATCH, UNDERLAY_BATCH = 512, 96
# Until what was sent is counted.
PATIENCE_S = 20
ETH_P_ALL = 3
# linux/if_packet.h, asm-generic/socket.h.
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
KERNEL = "left to the kernel, which refuses it"


class Listener:
    """Reads all that an interface sends and receives."""

    def __init__(self, interface, namespace=None):
        """Without a namespace, of our own."""
        with namespaces.inside(namespace) if namespace else contextlib.nullcontext():
            # It hears nothing before it is bound.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.bind((interface, ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.socket.setblocking(False)
        self.marked = self.others = 0

    def read(self):
        while True:
            try:
                frame = self.socket.recv(2048)
            except BlockingIOError:
                return
            if MARK in frame:
                self.marked += 1
            else:
                self.others += 1

    def missed(self):
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        return int.from_bytes(statistics[4:8], sys.byteorder)


class Counts:
    """What the switch has dropped of the port's, by reason, and the node's kernel refused, since this was made."""

    def __init__(self, client, port, reasons):
        self.client, self.port, self.reasons = client, port, reasons
        self.before = collections.Counter()
        self.before = self.read()

    def read(self):
        counts = collections.Counter()
        for drop in self.client.ask("show-drops")["reasons"]:
            if drop["port"] == self.port and drop["reason"] in self.reasons:
                counts[drop["reason"]] += drop["packets"]
        if KERNEL in self.reasons:
            counts[KERNEL] = protocols_refused()
        counts.subtract(self.before)
        return counts


def protocols_refused():
    """Packets that the kernel of this namespace got for itself, of a protocol that nothing there takes."""
    with open("/proc/thread-self/net/snmp", encoding="ascii") as lines:
        names, values = [line.split() for line in lines if line.startswith("Ip:")]
    return int(values[names.index("InUnknownProtos")])


def attack(options, honest, kinds, batch):
    listeners = [
        Listener("eth0", options.victim),
        Listener("eth0", options.other),
        Listener("vsw0"),
    ]
    with namespaces.inside(options.attacker):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("eth0", 0))
    hears(listeners[0], wire, honest)
    reasons = [kind.reason or KERNEL for kind in kinds]
    counts = Counts(Client(options.socket), options.port, set(reasons))
    turns = itertools.cycle(kind.frame for kind in kinds)
    began, sent = time.monotonic(), 0
    while sent < options.count:
        number = min(batch, options.count - sent)
        for frame in itertools.islice(turns, number):
            send(wire, frame)
        sent += number
        counted = settle(counts, sent - batch)
        for listener in listeners:
            listener.read()
        say(sent, options.count, batch)
        if sent - counted > 2 * batch:
            break
    seconds = time.monotonic() - began
    settle(counts, sent)
    # What comes out late comes out all the same.
    time.sleep(0.2)
    for listener in listeners:
        listener.read()
    wanted = collections.Counter()
    for index, reason in enumerate(reasons):
        wanted[reason] += sent // len(kinds) + (index < sent % len(kinds))
    found = counts.read()
    return {
        "kinds": len(kinds),
        "sent": sent,
        "counted": sum(found[reason] for reason in wanted if reason != KERNEL),
        "left_to_kernel": found[KERNEL],
        "reasons": {reason: {"sent": wanted[reason], "counted": found[reason]} for reason in wanted},
        "delivered": sum(listener.marked for listener in listeners),
        "heard_otherwise": sum(listener.others for listener in listeners),
        "not_heard": sum(listener.missed() for listener in listeners),
        "a_second": round(sent / seconds),
    }


def hears(listener, wire, honest):
    """That nothing is heard means something: an honest frame, with the mark, is."""
    send(wire, honest)
    deadline = time.monotonic() + PATIENCE_S
    while listener.marked == 0:
        if time.monotonic() > deadline:
            sys.exit("an honest frame of the attacker does not reach the victim, or is not heard there")
        time.sleep(0.01)
        listener.read()
    listener.marked = 0


def send(wire, frame):
    while True:
        try:
            wire.send(frame)
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(0.001)  # The queue was full: it was not sent.


def settle(counts, number):
    """Waits until so many are counted; how many are."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        counted = sum(counts.read().values())
        if counted >= number or time.monotonic() > deadline:
            return counted


def say(sent, total, batch):
    tenth = max(total // 10, batch)
    if sent // tenth > (sent - batch) // tenth:
        print(f"▸ {sent} of {total} frames", file=sys.stderr, flush=True)


def end_of(namespace):
    (link,) = json.loads(namespaces.ip("-n", namespace, "-json", "address", "show", "dev", "eth0"))
    addresses = {
        each["family"]: each["local"] for each in link["addr_info"] if each["scope"] == "global"
    }
    mac = bytes.fromhex(link["address"].replace(":", ""))
    return End(mac, addresses.get("inet"), addresses.get("inet6"))


def gateway_of(pod):
    hops = (
        json.loads(namespaces.ip("-n", pod, "-json", family, "route", "show", "default"))
        for family in ("-4", "-6")
    )
    return End(GATEWAY_MAC, *(hop[0]["gateway"] for hop in hops))


def silence(pod):
    """Its kernel sends nothing of its own any more, so that all that is counted of it was forged."""
    namespaces.ip("-n", pod, "link", "set", "eth0", "arp", "off", "multicast", "off")
    with namespaces.inside(pod):
        with open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "w", encoding="ascii") as switch:
            switch.write("1")


def nic_mac():
    (link,) = json.loads(namespaces.ip("-json", "link", "show", "dev", "eth0"))
    return bytes.fromhex(link["address"].replace(":", ""))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("party", choices=("pod", "underlay"))
    parser.add_argument("socket")
    parser.add_argument("count", type=int)
    for name in ("port", "attacker", "victim", "other", "node", "peer"):
        parser.add_argument(name)
    parser.add_argument("--bridged", action="store_true")
    parser.add_argument("--peer-pod")
    parser.add_argument("--stranger")
    parser.add_argument("--vni", type=int)
    options = parser.parse_args()
    own, victim = end_of(options.attacker), end_of(options.victim)
    gateway = gateway_of(options.victim)
    if options.party == "pod":
        other = end_of(options.other)
        silence(options.attacker)
        ends = own, victim, other, gateway, options.node, options.peer
        honest = forgeries.honest_of_pod(own, victim, options.bridged)
        kinds = list(forgeries.of_pod(*ends, options.bridged))
        batch = POD_BATCH
    else:
        macs = own.mac, nic_mac()
        nodes = options.node, options.peer
        inside = options.peer_pod, options.vni
        honest = forgeries.honest_of_underlay(*macs, *nodes, victim, *inside)
        kinds = list(forgeries.of_underlay(*macs, *nodes, options.stranger, victim, gateway, *inside))
        batch = UNDERLAY_BATCH
    print(json.dumps(attack(options, honest, kinds, batch)))


if __name__ == "__main__":
    main()

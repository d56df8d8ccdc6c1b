"""Plays node-b, and a pod on it, with scapy; run inside node-b's namespace. Prints `pass …` and
`fail …` lines.

Usage: ipip_judge.py POD_NETNS NODE_A NODE_B POD4 OUR_POD4 POD6 OUR_POD6
"""

import logging
import subprocess
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (  # noqa: E402
    AsyncSniffer,
    ICMP,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IP,
    IPv6,
    Raw,
    conf,
    send,
)

POD_NETNS, NODE_A, NODE_B, POD4, OUR_POD4, POD6, OUR_POD6 = sys.argv[1:]
conf.verb = 0
# What the IP header says of what is inside: RFC 2003, RFC 4213.
IPV4_INSIDE, IPV6_INSIDE = 4, 41


def judge(what, holds):
    """`holds` is True, or what was found instead."""
    print(f"pass {what}" if holds is True else f"fail {what}: {holds}", flush=True)


def equal(found, wanted):
    return found == wanted or f"{found!r} instead of {wanted!r}"


def checksum_holds(layer):
    """Whether the layer's checksum is what scapy computes for the same bytes."""
    field = "cksum" if hasattr(layer, "cksum") else "chksum"
    again = layer.copy()
    again.delfieldval(field)
    return equal(getattr(layer, field), getattr(again.__class__(bytes(again)), field))


def from_node_a(packet):
    return IP in packet and packet[IP].src == NODE_A and packet[IP].proto in (
        IPV4_INSIDE,
        IPV6_INSIDE,
    )


def seen_during(act, wanted):
    """The first packet from node-a that `wanted` accepts, while `act` runs."""
    sniffer = AsyncSniffer(iface="eth0", lfilter=lambda p: from_node_a(p) and wanted(p), count=1,
                           timeout=5)
    sniffer.start()
    # Until the socket is open nothing is seen.
    while not hasattr(sniffer, "stop_cb"):
        pass
    act()
    sniffer.join()
    return sniffer.results[0] if sniffer.results else None


def judge_outer(packet, protocol):
    outer = packet[IP]
    judge(f"outer protocol is {protocol}", equal(outer.proto, protocol))
    judge("outer addresses are the nodes'", equal((outer.src, outer.dst), (NODE_A, NODE_B)))
    # One router between.
    judge("outer TTL is sound", outer.ttl in (63, 254) or f"{outer.ttl}")
    judge("outer header checksum is right", checksum_holds(outer))
    judge("outer length covers the inner packet", equal(outer.len, 20 + len(bytes(outer.payload))))
    judge("it is not a fragment", equal((outer.flags.MF, outer.frag), (0, 0)))


def ping_from_pod(address, payload):
    """The pod's own ping, one packet; does not wait for the answer here."""
    return subprocess.Popen(
        ["nsenter", f"--net={POD_NETNS}", "ping", "-n", "-c", "1", "-W", "5", "-p", payload.hex(),
         "-s", "64", address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def what_the_pod_sends_4():
    pings = []
    packet = seen_during(lambda: pings.append(ping_from_pod(OUR_POD4, b"vswitch!")),
                         lambda p: p[IP].proto == IPV4_INSIDE)
    if packet is None:
        judge("the pod's IPv4 ping arrives as IPIP", "nothing came within five seconds")
        return
    judge_outer(packet, IPV4_INSIDE)
    inner = packet[IP].payload
    judge("inside is IPv4", equal(inner.__class__, IP))
    judge("inner addresses are the pods'", equal((inner.src, inner.dst), (POD4, OUR_POD4)))
    judge("inner TTL went down by one hop", equal(inner.ttl, 63))
    judge("inner header checksum is right", checksum_holds(inner))
    judge("inner ICMP checksum is right", checksum_holds(inner[ICMP]))
    judge("inner payload is intact",
          equal(bytes(inner[ICMP].payload)[16:64], (b"vswitch!" * 8)[16:64]))
    answer = (IP(src=NODE_B, dst=NODE_A) / IP(src=OUR_POD4, dst=POD4)
              / ICMP(type=0, id=inner[ICMP].id, seq=inner[ICMP].seq)
              / Raw(bytes(inner[ICMP].payload)))
    send(answer)
    judge("scapy's answer reaches the pod's ping", equal(pings[0].wait(), 0))


def what_the_pod_sends_6():
    pings = []
    packet = seen_during(lambda: pings.append(ping_from_pod(OUR_POD6, b"vswitch!")),
                         lambda p: p[IP].proto == IPV6_INSIDE)
    if packet is None:
        judge("the pod's IPv6 ping arrives as protocol 41", "nothing came within five seconds")
        return
    judge_outer(packet, IPV6_INSIDE)
    inner = packet[IP].payload
    judge("inside is IPv6", equal(inner.__class__, IPv6))
    judge("inner IPv6 addresses are the pods'", equal((inner.src, inner.dst), (POD6, OUR_POD6)))
    judge("inner hop limit went down by one hop", equal(inner.hlim, 63))
    echo = inner[ICMPv6EchoRequest]
    wanted = IPv6(bytes(IPv6(src=inner.src, dst=inner.dst, hlim=inner.hlim)
                        / ICMPv6EchoRequest(id=echo.id, seq=echo.seq, data=echo.data)))
    judge("inner ICMPv6 checksum is right", equal(echo.cksum, wanted[ICMPv6EchoRequest].cksum))
    answer = (IP(src=NODE_B, dst=NODE_A, proto=IPV6_INSIDE) / IPv6(src=OUR_POD6, dst=POD6)
              / ICMPv6EchoReply(id=echo.id, seq=echo.seq, data=echo.data))
    send(answer)
    judge("scapy's answer reaches the pod's IPv6 ping", equal(pings[0].wait(), 0))


def what_scapy_asks():
    asked4 = (IP(src=NODE_B, dst=NODE_A) / IP(src=OUR_POD4, dst=POD4)
              / ICMP(id=0x5343, seq=7) / Raw(b"asked by scapy"))
    reply = seen_during(lambda: send(asked4), lambda p: p[IP].proto == IPV4_INSIDE
                        and ICMP in p and p[ICMP].type == 0 and p[ICMP].id == 0x5343)
    judge("an IPIP echo request of scapy's is answered",
          reply is not None or "no answer within five seconds")
    if reply is not None:
        judge("with the same payload", equal(bytes(reply[ICMP].payload), b"asked by scapy"))
    asked6 = (IP(src=NODE_B, dst=NODE_A, proto=IPV6_INSIDE) / IPv6(src=OUR_POD6, dst=POD6)
              / ICMPv6EchoRequest(id=0x5343, seq=8, data=b"asked by scapy"))
    reply = seen_during(lambda: send(asked6), lambda p: p[IP].proto == IPV6_INSIDE
                        and ICMPv6EchoReply in p and p[ICMPv6EchoReply].id == 0x5343)
    judge("an IPv6 echo request of scapy's as protocol 41 is answered",
          reply is not None or "no answer within five seconds")


def what_must_not_pass():
    """A known node with a foreign inner source, and an unknown node: neither is decapsulated."""
    for what, outer, inner in (
        ("a foreign inner source is not answered", NODE_B, "198.18.9.9"),
        ("an unknown outer source is not answered", "203.0.113.99", OUR_POD4),
    ):
        asked = (IP(src=outer, dst=NODE_A) / IP(src=inner, dst=POD4) / ICMP(id=0x6261, seq=9))
        reply = seen_during(lambda asked=asked: send(asked),
                            lambda p: ICMP in p and p[ICMP].id == 0x6261)
        judge(what, reply is None or "it was")


what_the_pod_sends_4()
what_the_pod_sends_6()
what_scapy_asks()
what_must_not_pass()

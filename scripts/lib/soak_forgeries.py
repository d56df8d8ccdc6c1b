"""What a pod, and a host of the underlay, may try: frames in another's name, and the reason for which the switch
drops each.

Enters: the ends, as soak_attack.py finds them. Leaves: forgeries, of which none may come out anywhere.
docs/security.md says what each party cannot do; the scenarios of the dataplane have more cases, a frame each.
"""

import dataclasses
import socket
import struct

import soak_frames as frames
from soak_frames import BROADCAST, MARK, ethernet, frame_of, ip, udp

# The fixed address of every pod's gateway.
GATEWAY_MAC = bytes.fromhex("027673000001")
VXLAN_PORT = 4789
# Kinds of ICMP and ICMPv6.
REDIRECT, MLD_QUERY, ROUTER_ADVERTISEMENT, NEIGHBOR_ADVERTISEMENT, REDIRECT6 = 5, 130, 134, 136, 137
# Addresses that neither a pod nor a node has.
NOBODY_V4, NOBODY_V6 = "198.18.99.9", "fd00:18:99::9"


@dataclasses.dataclass(frozen=True)
class End:
    """A pod, or the gateway of its node."""

    mac: bytes
    v4: str
    v6: str


@dataclasses.dataclass(frozen=True)
class Forgery:
    """REASON is the name of the drop reason; none where the packet stays the kernel's."""

    what: str
    reason: str | None
    frame: bytes


def honest_of_pod(pod, victim, is_bridged):
    """What the pod may send."""
    return frame_of(victim.mac if is_bridged else GATEWAY_MAC, pod.mac, udp(pod.v4, victim.v4, 7, 7))


def of_pod(pod, victim, other, gateway, node, peer, is_bridged):
    """POD sends them to VICTIM. OTHER is a third pod of the node, NODE the underlay address of this one and
    PEER of another."""
    to = victim.mac if is_bridged else GATEWAY_MAC

    def sent(packet, source=pod.mac, destination=to):
        return frame_of(destination, source, packet)

    def in_name(source):
        return sent(udp(source, victim.v6 if frames.is_v6(source) else victim.v4, 7, 7))

    honest = udp(pod.v4, victim.v4, 7, 7)
    yield Forgery("address of another pod", "source-address-spoofed", in_name(other.v4))
    yield Forgery("IPv6 address of another pod", "source-address-spoofed", in_name(other.v6))
    yield Forgery("address of the gateway", "source-address-spoofed", in_name(gateway.v4))
    yield Forgery("address of the node", "source-address-spoofed", in_name(node))
    yield Forgery("address of another node", "source-address-spoofed", in_name(peer))
    # On a segment the first question is whether the address is the pod's.
    martian = "source-address-spoofed" if is_bridged else "source-martian"
    yield Forgery("127.0.0.1", martian, in_name("127.0.0.1"))
    yield Forgery("::1", martian, in_name("::1"))
    yield Forgery("MAC of the victim", "source-mac-spoofed", sent(honest, victim.mac, BROADCAST))
    yield Forgery("MAC of the gateway", "source-mac-spoofed", sent(honest, GATEWAY_MAC))
    yield Forgery("a group's MAC", "source-mac-invalid", sent(honest, b"\x03\0\0\0\0\x01"))
    yield Forgery(
        "to 127.0.0.1 by the gateway",
        "destination-martian",
        sent(udp(pod.v4, "127.0.0.1", 7, 7), destination=GATEWAY_MAC),
    )
    yield from as_router(pod, victim, sent)
    yield from of_neighbors(pod, victim, other, gateway, is_bridged)
    yield from hidden(pod, victim, other, sent)
    yield from tunnels_of_pod(pod, gateway, node, peer)


def as_router(pod, victim, sent):
    """A pod that plays router or DHCP server."""
    rogue = "rogue-advertisement"
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\x01\x01" + pod.mac + b"\xfd\x01" + MARK
    advertised = frames.icmpv6(link_local(pod.mac), "ff02::1", ROUTER_ADVERTISEMENT, body)
    yield Forgery("router advertisement", rogue, sent(advertised, destination=frames.ALL_NODES))
    for server, client, own, its in ((67, 68, pod.v4, victim.v4), (547, 546, pod.v6, victim.v6)):
        yield Forgery(f"DHCP to port {client}", rogue, sent(udp(own, its, server, client)))
    redirect = socket.inet_aton(pod.v4) + udp(victim.v4, NOBODY_V4, 7, 7)
    yield Forgery("redirect", rogue, sent(frames.icmp(pod.v4, victim.v4, REDIRECT, 1, redirect)))
    redirect6 = bytes(4) + frames.packed(pod.v6) + frames.packed(NOBODY_V6) + b"\xfd\x01" + MARK
    yield Forgery("redirect of IPv6", rogue, sent(frames.icmpv6(pod.v6, victim.v6, REDIRECT6, redirect6)))
    query = ip(pod.v4, victim.v4, frames.IGMP, frames.igmp_query())
    yield Forgery("IGMP query", "rogue-query", sent(query))
    query6 = frames.icmpv6(pod.v6, victim.v6, MLD_QUERY, bytes(20) + MARK)
    yield Forgery("MLD query", "rogue-query", sent(query6))


def of_neighbors(pod, victim, other, gateway, is_bridged):
    """ARP and neighbour discovery. A routed pod's end at the switch, which believes nothing."""
    reply = 2
    address, mac, discovery = (
        ("source-address-spoofed", "source-mac-spoofed", "source-address-spoofed")
        if is_bridged
        else ("arp-unanswered", "arp-unanswered", "nd-unanswered")
    )

    def said(what, reason, message, destination=victim.mac):
        return Forgery(what, reason, ethernet(destination, pod.mac, frames.ARP, message))

    def claim(own_mac, own):
        return frames.arp(reply, own_mac, own, victim.mac, victim.v4)

    yield said("ARP reply for the gateway", address, claim(pod.mac, gateway.v4))
    yield said("ARP reply for another pod", address, claim(pod.mac, other.v4))
    yield said("ARP reply with another's MAC", mac, claim(GATEWAY_MAC, pod.v4))
    unasked = frames.arp(1, pod.mac, victim.v4, bytes(6), victim.v4)
    yield said("gratuitous ARP for the victim", address, unasked, BROADCAST)
    for what, target in (("the gateway", gateway.v6), ("another pod", other.v6)):
        message = frames.icmpv6(
            pod.v6, victim.v6, NEIGHBOR_ADVERTISEMENT, frames.advertisement(target, pod.mac)
        )
        yield Forgery(f"neighbour advertisement for {what}", discovery, frame_of(victim.mac, pod.mac, message))


def hidden(pod, victim, other, sent):
    """What is not to be read for what it is, or goes on behind the address that is judged."""
    spoofed = sent(udp(other.v4, victim.v4, 7, 7))
    tagged = spoofed[:12] + struct.pack("!HH", frames.VLAN, 0) + spoofed[12:]
    yield Forgery("behind a VLAN tag", "ethertype-unsupported", tagged)
    # RFC 791, section 3.1: a loose source route, whose next hop is the other pod.
    source_route = b"\x83\x07\x04" + frames.packed(other.v4) + b"\0"
    routed = udp(pod.v4, victim.v4, 7, 7, options=source_route)
    yield Forgery("with a source route", "source-routed", sent(routed))
    tiny = ip(pod.v4, victim.v4, frames.TCP, MARK + bytes(2), fragment=frames.MORE_FRAGMENTS)
    yield Forgery("first fragment without a whole header", "fragment-tiny", sent(tiny))


def tunnels_of_pod(pod, gateway, node, peer):
    """Tunnel packets of a pod for nodes, which could take them for another node's."""
    inner4, inner6 = udp(NOBODY_V4, gateway.v4, 7, 7), udp(NOBODY_V6, gateway.v6, 7, 7)
    for end, address in (("this node", node), ("another node", peer), ("the gateway", gateway.v4)):
        vxlan = frames.vxlan(10, frame_of(vtep_mac(node), vtep_mac(peer), inner4))
        for what, packet in (
            ("IPIP", ip(pod.v4, address, frames.IPIP, inner4)),
            ("IPv6 in IP", ip(pod.v4, address, frames.IPV6_IN_IP, inner6)),
            ("GRE", ip(pod.v4, address, frames.GRE, b"\0\0\x08\0" + inner4)),
            ("VXLAN", udp(pod.v4, address, 50000, VXLAN_PORT, vxlan)),
        ):
            yield Forgery(f"{what} to {end}", "tunnel-from-pod", frame_of(GATEWAY_MAC, pod.mac, packet))


def honest_of_underlay(own_mac, nic_mac, node, peer, victim, peer_pod, vni):
    """What the peer may send, and nobody can tell who has sent it."""
    frame = frame_of(vtep_mac(node), vtep_mac(peer), udp(peer_pod, victim.v4, 7, 7))
    datagram = udp(peer, node, 50000, VXLAN_PORT, frames.vxlan(vni, frame))
    return frame_of(nic_mac, own_mac, datagram)


def of_underlay(own_mac, nic_mac, node, peer, stranger, victim, gateway, peer_pod, vni):
    """A host of the underlay sends them to NODE, which has that NIC, in the name of PEER or of no peer. VICTIM is a pod
    of this node, PEER_POD an address of the peer's pods."""

    def carried(packet):
        return frame_of(nic_mac, own_mac, packet)

    def vxlan(what, reason, inner, source=peer, number=vni, flags=0x08, ethertype=None):
        # Of an IP packet, unless the type of what is inside is given.
        ends = vtep_mac(node), vtep_mac(source)
        frame = ethernet(*ends, ethertype, inner) if ethertype else frame_of(*ends, inner)
        datagram = udp(source, node, 50000, VXLAN_PORT, frames.vxlan(number, frame, flags))
        return Forgery(f"VXLAN {what}", reason, carried(datagram))

    def ipip(what, reason, inner, source=peer, protocol=frames.IPIP):
        return Forgery(f"IPIP {what}", reason, carried(ip(source, node, protocol, inner)))

    of_peer, of_nobody = udp(peer_pod, victim.v4, 7, 7), udp(NOBODY_V4, victim.v4, 7, 7)
    of_victim = udp(victim.v4, victim.v4, 7, 7)
    of_nobody6 = udp(NOBODY_V6, victim.v6, 7, 7)
    foreign = "inner-source-foreign"

    yield vxlan("from no peer", "unknown-peer", of_peer, stranger)
    yield vxlan("from no peer, another VNI", "unknown-vni", of_peer, stranger, vni + 1)
    yield vxlan("with another VNI", "unknown-vni", of_peer, number=vni + 1)
    yield vxlan("without its flag", "outer-malformed", of_peer, flags=0)
    yield vxlan("from nobody's pod", foreign, of_nobody)
    yield vxlan("from nobody's pod, IPv6", foreign, of_nobody6)
    yield vxlan("from this node's own pod", foreign, of_victim)
    yield vxlan("from this node's gateway", foreign, udp(gateway.v4, victim.v4, 7, 7))
    yield vxlan("from 127.0.0.1", "source-martian", udp("127.0.0.1", victim.v4, 7, 7))
    arp = frames.arp(2, vtep_mac(peer), peer_pod, victim.mac, victim.v4)
    yield vxlan("with ARP in it", "ethertype-unsupported", arp, ethertype=frames.ARP)
    inner = frames.vxlan(vni, frame_of(vtep_mac(node), vtep_mac(peer), of_peer))
    nested = udp(peer, node, 50000, VXLAN_PORT, inner)
    yield vxlan("in VXLAN, to the node", "split-horizon", nested)
    to_gateway = udp(peer_pod, gateway.v4, 50000, VXLAN_PORT, inner)
    yield vxlan("in VXLAN, to the gateway", "tunnel-from-pod", to_gateway)
    nested_ipip = ip(peer_pod, gateway.v4, frames.IPIP, of_peer)
    yield vxlan("with IPIP in it", "tunnel-from-pod", nested_ipip)

    yield ipip("from no peer", None, of_peer, stranger)
    yield ipip("from no peer, IPv6", None, of_nobody6, stranger, frames.IPV6_IN_IP)
    yield ipip("from nobody's pod", foreign, of_nobody)
    yield ipip("from nobody's pod, IPv6", foreign, of_nobody6, protocol=frames.IPV6_IN_IP)
    yield ipip("from this node's own pod", foreign, of_victim)
    yield ipip("with IPv6 as protocol 4", "outer-malformed", of_nobody6)
    yield ipip("in IPIP, to the gateway", "tunnel-from-pod", nested_ipip)
    yield ipip("in IPIP, to the node", "split-horizon", ip(peer, node, frames.IPIP, of_peer))
    yield ipip("with VXLAN in it", "split-horizon", nested)


def vtep_mac(address):
    """The MAC that our nodes derive of their underlay address."""
    return b"\x02\x76" + socket.inet_aton(address)


def link_local(mac):
    """RFC 4291, appendix A."""
    interface = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + interface)

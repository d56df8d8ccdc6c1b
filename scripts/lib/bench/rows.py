"""The rows of the benchmarks of a node: what is compared with what, and which ratio is asked for.

A row's floor is where a change has broken something; its goal is what the product claims.
"""

# Which CPU has which end; {worker} is the CPU of vswitchd's worker.
PLACES = {
    "apart": "server CPU {worker}, client CPU {other}",
    "swapped": "server CPU {other}, client CPU {worker}",
    "together": "both CPU {other}",
    "free": "both where the scheduler has them",
}
# What a row's id ends in; the first place is what it is asked for.
END = {"apart": "", "swapped": "-swapped", "together": "-together", "free": "-free"}
# With two nodes of ours: the worker of the sending one is on the first of them, that of the other on the second.
TWO_WORKERS = {place: f"{words}, workers CPU {{worker}} and {{other}}" for place, words in PLACES.items()}

# The uplink af_xdp on a veth, which has no zero-copy.
COPIES = "AF_XDP copy, sent by packet sockets"


class Row:
    """A comparison with a peer, or with nothing if PEER is None.

    The bounds are of the ratio; where there is no peer, or `absolute` is given, of our figure itself.
    `figure` is the key of the samples' figures, OURS our side. `sign` is 1 where more is better, -1 where less is.
    """

    def __init__(self, id, measurement, peer, what, unit, floor, goal, sign=1, figure="value", ours="vswitchd", absolute=False):
        self.id, self.measurement, self.peer, self.what = id, measurement, peer, what
        self.ours, self.unit, self.floor, self.goal, self.sign, self.figure = ours, unit, floor, goal, sign, figure

        self.absolute = absolute or peer is None

    def verdict(self, ours, ratio):
        """None where nothing is asked for."""
        if self.goal is None and self.floor is None:
            return None
        judged = ours if self.absolute else ratio
        for name in ("goal", "floor"):
            bound = getattr(self, name)
            if bound is not None and (judged - bound) * self.sign >= 0:
                return name
        return "below"


def rows():
    yield from same_node()
    yield from tunnels()
    yield from node()
    yield from sessions()


def same_node():
    for streams in (1, 8):
        more = "" if streams == 1 else "-8"
        for place, words in PLACES.items():
            # Where the scheduler places the ends nothing is asked for: rounds differ by where that is.
            row, *bounds = {"together": ("B2", 0.75, 1.0), "free": ("B1", None, None)}.get(place, ("B1", 0.8, 1.0))
            name = f"tcp-{streams}-{place}"
            what = f"TCP, {streams} stream{'s' if streams > 1 else ''}, Gb/s, {words}"
            end = "" if place == "together" else END[place]
            yield Row(f"{row}{more}{end}", name, "bridge", what, 1e9, *bounds)
    for place in ("apart", "together"):
        for row, peer, floor, goal in (("B3", "ovs-tso", 1.0, 1.5), ("B4", "ovs", 4, 8)):
            what = f"TCP, 1 stream, Gb/s, {PLACES[place]}"
            yield Row(f"{row}{END[place]}", f"tcp-1-{place}", peer, what, 1e9, floor, goal)
    for place in ("apart", "together", "free"):
        asked = f"request and response, p50, us, {PLACES[place]}"
        name = f"exchange-{place}"
        if place == "free":
            yield Row("B13-free", name, "bridge", asked, 1, None, None, -1, "p50_us")
            yield Row("B13-free-p99", name, "bridge", asked.replace("p50", "p99"), 1, None, None, -1, "p99_us")
        elif place == "apart":
            yield Row("B13", name, "bridge", asked, 1, 0.8, 0.5, -1, "p50_us")
            yield Row("B13-p99", name, "bridge", asked.replace("p50", "p99"), 1, 0.8, 0.8, -1, "p99_us")
        else:
            yield Row("B14", name, "bridge", asked, 1, 3, 1.5, -1, "p50_us")
    for clients in (1, 16):
        for place in ("apart", "together", "free"):
            bounds = (None, None) if place == "free" else (0.7, 1.0)
            made = f"connections/s, {clients} client{'s' if clients > 1 else ''}, {PLACES[place]}"
            yield Row(f"B23-{clients}-{place}", f"connect-{clients}-{place}", "bridge", made, 1, *bounds)
    yield from datagrams()


def datagrams():
    for row, peer, floor, goal in (("B8", "bridge", 0.9, 1.4), ("B9", "ovs", 1.5, 3)):
        what = "64 bytes, 1000 flows, kpps, sender CPU {other}"
        yield Row(row, "pdr", peer, f"{what}, 0.5 % lost, dropped at the receiver's NIC", 1e3, floor, goal)
        yield Row(f"{row}-flood", "flood", peer, f"{what}, of a flood, dropped there", 1e3, None, None)
    for scheduling, words in (("fifo", "SCHED_FIFO"), ("ordinary", "ordinary")):
        name, what = f"victim-{scheduling}", f"victim of a flood, {words}, all CPU {{other}}"
        for key, quantile in (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")):
            asked = (1.0, 0.3) if quantile == "p99.9" else (None, None)
            row = "B15" if (scheduling, quantile) == ("fifo", "p99.9") else f"B15-{scheduling}-{quantile}"
            yield Row(row, name, "bridge", f"{what}, {quantile}, us", 1, *asked, -1, key)
        yield Row(f"B15-{scheduling}-lost", name, "bridge", f"{what}, lost, %", 1, None, None, -1, "lost")
    what = "bursts of 512 of 64 bytes, arrived, %, sender CPU {other}, dropped at the receiver's NIC"
    yield Row("B16", "bursts", "bridge", what, 1, 1.0, 1.0)
    yield Row("B16-none-lost", "bursts", None, what, 1, None, 100)


def tunnels():
    for direction, way, row, floor in (("out", "pod to wire", "B6", 0.6), ("in", "wire to pod", "B7", 0.7)):
        for place in ("apart", "together"):
            what = f"VXLAN TCP, {way}"
            name, how = f"{direction}-af_xdp-{place}", f"{COPIES}, {{interrupts}}, Gb/s, {PLACES[place]}"
            for peer, end, bounds in (("kernel-cut", "", (floor, 1.0)), ("kernel-uncut", "-uncut", (None, None))):
                yield Row(f"{row}{END[place]}{end}", name, peer, f"{what}, {how}", 1e9, *bounds, ours="vswitchd-cut")
            name, how = f"{direction}-offload-{place}", f"offload, {{interrupts}}, Gb/s, {PLACES[place]}"
            row_of_offload = f"B5{'-in' if direction == 'in' else ''}{END[place]}"
            yield Row(row_of_offload, name, "kernel-uncut", f"{what}, {how}", 1e9, 0.85, 1.1, ours="vswitchd-uncut")
    yield from between_ours("af_xdp", COPIES, "", "cut", (0.6, 1.0))
    yield from between_ours("offload", "offload", "-offload", "uncut", (0.85, 1.1))
    yield from by_packet_sockets()


def between_ours(uplink, words, suffix, whole, asked):
    # This kernel has no IPIP: its VXLAN stands there instead, and nothing is asked for.
    for mode, tunnel, peer in (
        ("vxlan", "VXLAN", f"kernel-{whole}"),
        ("ipip", "IPIP beside VXLAN", f"kernel-{whole}"),
        ("direct", "no tunnel", f"kernel-routed-{whole}"),
    ):
        for place in ("apart", "together"):
            end, ours = f"{mode}-{place}{suffix}", f"vswitchd-{whole}"
            what = f"{tunnel}, both ours, {words}, {{interrupts}}"
            bounds = (None, None) if mode == "ipip" else asked
            moved = f"{what}, TCP, Gb/s, {TWO_WORKERS[place]}"
            yield Row(f"B24-{end}", f"both-{uplink}-{mode}-{place}", peer, moved, 1e9, *bounds, ours=ours)
            for key, bounds in (("p50", (1.0, 0.5)), ("p99", (1.5, 0.8))):
                took = f"{what}, exchange {key}, us, {TWO_WORKERS[place]}"
                bounds = (None, None) if mode == "ipip" else bounds
                name = f"both-exchange-{uplink}-{mode}-{place}"
                yield Row(f"B25-{end}-{key}", name, peer, took, 1, *bounds, -1, f"{key}_us", ours)


def by_packet_sockets():
    # The fallback: it is shown what it costs, and nothing is asked for. Superframes pass whole without a tunnel.
    for mode, tunnel, whole, peer in (
        ("vxlan", "VXLAN", "cut", "kernel-cut"),
        ("direct", "no tunnel", "uncut", "kernel-routed-uncut"),
    ):
        for place in ("apart", "together"):
            what = f"{tunnel}, both ours, packet sockets, {{interrupts}}, TCP, Gb/s, {TWO_WORKERS[place]}"
            name, ours = f"both-af_packet-{mode}-{place}", f"vswitchd-{whole}"
            yield Row(f"B24-{mode}-{place}-packet", name, peer, what, 1e9, None, None, ours=ours)


def node():
    yield Row("B17", "idle", "ovs", "100 pods that do nothing, % of a CPU", 1, 2, 0.5, -1, absolute=True)
    yield Row("B18", "add", "reference", "CNI ADD, one after the other, p50, ms", 1, 1.0, 0.5, -1, "serial_p50_ms")
    yield Row("B18-p99", "add", "reference", "CNI ADD, 16 at once, p99, ms", 1, 1.0, 0.5, -1, "at_once_p99_ms")
    yield Row("B20", "memory", "ovs", "100 pods, resident memory, MB", 1e6, 96, 48, -1, absolute=True)
    routes = "a million routes, 126,976 of IPv4"
    yield Row("B10", "many-routes", "few", f"{routes}, beside ten, 64 bytes, of a flood, kpps, sender CPU {{other}}", 1e3, 0.85, 0.95)
    yield Row("B19", "fib", "kernel", f"{routes}, taken, thousands/s", 1e3, 5, 20)
    yield Row("B19-bytes", "fib", "kernel", f"{routes}, bytes each", 1, 64, 32, -1, "bytes_each", absolute=True)
    wait = f"{routes}, longest wait meanwhile, SCHED_FIFO, us"
    yield Row("B19-wait", "fib-wait", "idle", wait, 1, 200, 50, -1, absolute=True)


def sessions():
    for rules, floor, goal in ((1000, 3, 10), (5000, 10, 30)):
        flood = f"{rules} policy rules, 64 bytes, kpps, sender CPU {{other}}"
        yield Row(f"B11-{rules}", f"flood-{rules}", "nft-stateless", flood, 1e3, floor, goal)
        yield Row(f"B11-{rules}-states", f"flood-{rules}", "nft-linear", flood, 1e3, None, None)
        for place in ("apart", "together"):
            made = f"{rules} rules, connections/s, {PLACES[place]}"
            name = f"connections-{rules}-{place}"
            yield Row(f"B12-{rules}-{place}", name, "nft-sets", made, 1, 0.7, 1.0)
            yield Row(f"B12-{rules}-{place}-linear", name, "nft-linear", made, 1, 0.7, 1.0)
    for place in ("apart", "together"):
        made = f"10,000 Services, connections/s, {PLACES[place]}"
        yield Row(f"B21-{place}", f"services-{place}", "kube-nft", made, 1, 0.7, 1.0)
        yield Row(f"B21-{place}-iptables", f"services-{place}", "kube-iptables", made, 1, 1.0, 5.0)
    changed = "one endpoint of 10,000 Services in force, ms"
    yield Row("B22", "in-force", "kube-nft", changed, 1, 1.0, 0.7, -1)
    yield Row("B22-iptables", "in-force", "kube-iptables", changed, 1, 1.0, 0.7, -1)

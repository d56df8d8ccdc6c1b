"""GC among many pods: half of one network's are not listed, and another network's stand beside.

Usage: soak_collect.py SOCKET PLUGIN CONFIG PREFIX REGISTER COUNT KEPT BESIDE

It runs in the node's network namespace. COUNT pods of one network, of which a GC lists KEPT, and BESIDE pods of
another network, whose GC is not called. Prints one JSON object: how many were freed, and what should not be:
listed pods that were freed or do not reach their gateway, others that stayed, interfaces of freed pods, pods of
the other network that changed.
"""

import concurrent.futures
import json
import subprocess
import sys
import time

import soak_namespaces as namespaces
from bench.control_socket import Client
from soak_plugin import Network

AT_ONCE = 8
# Until the kernel has removed the interface of a pod that was freed.
PATIENCE_S = 5


def main():
    path, plugin, config, prefix, register, *counts = sys.argv[1:]
    count, kept, beside = map(int, counts)
    one, two = Network(plugin, config, "one"), Network(plugin, config, "two")
    pods = [f"{prefix}g{number}" for number in range(count)]
    others = [f"{prefix}b{number}" for number in range(beside)]
    # Every other one, so that neither the first nor the last are the listed.
    listed = pods[:: max(1, count // kept)][:kept]
    freed = sorted(set(pods) - set(listed))
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            for network, names in ((one, pods), (two, others)):
                for answer in threads.map(lambda pod: added(network, pod, register), names):
                    if not answer.succeeded:
                        sys.exit(f"an ADD failed: {answer.reason}")
                print(f"▸ {len(names)} pods of network {network.name}", file=sys.stderr, flush=True)
            before = attached(path)
            answer = one.collect(listed)
            if not answer.succeeded:
                sys.exit(f"GC failed: {answer.reason}")
            after = attached(path)
            here, gone = set(after), set(before) - set(after)
            report = {
                "freed": len(gone & set(freed)),
                "listed_freed": len(gone & set(listed)),
                "unlisted_left": len(here & set(freed)),
                "interfaces_left": sum(threads.map(keeps_interface, freed)),
                "listed_cut_off": len(listed) - sum(threads.map(reaches_gateway, listed)),
                "others_touched": sum(before[pod] != after.get(pod) for pod in others),
                "others_cut_off": len(others) - sum(threads.map(reaches_gateway, others)),
                "gc_ms": round(answer.seconds * 1000),
            }
        finally:
            list(threads.map(ended, pods + others))
    print(json.dumps(report))


def added(network, pod, register):
    namespaces.add(pod, register)
    return network.add(pod)


def attached(path):
    """Every port of a pod, without its counters."""
    ports = Client(path).ask("show-ports")
    return {
        port["attachment"]["container_id"]: {
            key: port[key] for key in ("id", "name", "mac", "addresses", "network")
        }
        for port in ports
        if port.get("attachment")
    }


def keeps_interface(pod):
    deadline = time.monotonic() + PATIENCE_S
    while "eth0" in namespaces.interfaces(pod):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False


def reaches_gateway(pod):
    if "eth0" not in namespaces.interfaces(pod):
        return False
    routes = json.loads(namespaces.ip("-n", pod, "-json", "-4", "route", "show", "default"))
    with namespaces.inside(pod):
        ping = subprocess.run(
            ["ping", "-q", "-n", "-c", "1", "-W", "2", routes[0]["gateway"]],
            stdout=subprocess.DEVNULL,
            check=False,
        )
    return ping.returncode == 0


def ended(pod):
    try:
        namespaces.delete(pod)
    except OSError:
        pass  # It was not made.


if __name__ == "__main__":
    main()

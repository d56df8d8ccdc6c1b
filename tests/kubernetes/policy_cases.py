"""Applies a step of policy_cases.json to the API server, and has the pods try what it allows.

Usage: policy_cases.py CASES SERVER PKI SOCKETS STEP
       policy_cases.py list CASES

SOCKETS is a directory with a socket of policy_peer.py for each pod, NAMESPACE-NAME.sock. A step is tried until
each pod reaches what is expected and nothing else, or for twenty seconds; then the differences are printed.
"""

import json
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 20
PORTS = (80, 81)
POLICIES = "/apis/networking.k8s.io/v1"


class Server:
    def __init__(self, url, pki):
        self.url = url
        context = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        context.load_cert_chain(f"{pki}/admin.crt", f"{pki}/admin.key")
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        self.opener = urllib.request.build_opener(*handlers)

    def ask(self, method, path, body=None, kind="application/json"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind}, method=method)
        with self.opener.open(request, timeout=10) as answer:
            return json.load(answer)

    def patch(self, path, body):
        self.ask("PATCH", path, body, "application/merge-patch+json")

    def policies(self):
        items = self.ask("GET", f"{POLICIES}/networkpolicies")["items"]
        return {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in items}

    def remove(self, namespace, name):
        self.ask("DELETE", f"{POLICIES}/namespaces/{namespace}/networkpolicies/{name}")

    def put(self, policy):
        namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
        path = f"{POLICIES}/namespaces/{namespace}/networkpolicies"
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"} | policy
        if (namespace, name) in self.policies():
            known = self.ask("GET", f"{path}/{name}")
            body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            self.ask("PUT", f"{path}/{name}", body)
        else:
            self.ask("POST", path, body)

    def label(self, path, labels):
        """These are all labels of the object."""
        known = self.ask("GET", path)["metadata"].get("labels") or {}
        if known != labels:
            self.patch(path, {"metadata": {"labels": dict.fromkeys(known) | labels}})


def apply(server, cases, step):
    if step["step"] == 0:
        wanted = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in step["put"]}
        for namespace, name in server.policies() - wanted:
            server.remove(namespace, name)
        namespaces, pods = cases["namespaces"], cases["pods"]
    else:
        namespaces, pods = step["namespaces"], step["pods"]
    for one in namespaces:
        server.label(f"/api/v1/namespaces/{one['name']}", one["labels"])
    for one in pods:
        namespace, name = one["pod"].split("/")
        server.label(f"/api/v1/namespaces/{namespace}/pods/{name}", one["labels"])
    for policy in step["put"]:
        server.put(policy)
    for one in step["gone"]:
        server.remove(*one.split("/"))


def try_all(cases, sockets):
    targets = [
        [pod["address"], protocol, port]
        for pod in cases["pods"]
        for protocol in ("TCP", "UDP")
        for port in PORTS
    ]
    line = json.dumps(targets).encode() + b"\n"
    rows = {}

    def try_from(pod):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"{sockets}/{pod.replace('/', '-')}.sock")
            peer.sendall(line)
            rows[pod] = peer.makefile().readline().strip()

    threads = [threading.Thread(target=try_from, args=[pod["pod"]]) for pod in cases["pods"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


def differences(cases, expected, found):
    columns = [
        f"{pod['pod']} {protocol} {port}"
        for pod in cases["pods"]
        for protocol in ("TCP", "UDP")
        for port in PORTS
    ]
    for pod, row in expected.items():
        for column, wanted, seen in zip(columns, row, found.get(pod, "").ljust(len(row), "?")):
            if wanted != seen:
                yield f"{pod} to {column}: {'denied' if wanted == '1' else 'allowed'}"


def main():
    if sys.argv[1] == "list":
        with open(sys.argv[2]) as file:
            for number, step in enumerate(json.load(file)["steps"]):
                print(number, f"{step['name']}, step {step['step'] + 1}")
        return
    path, url, pki, sockets, number = sys.argv[1:]
    with open(path) as file:
        cases = json.load(file)
    step = cases["steps"][int(number)]
    apply(Server(url, pki), cases, step)
    deadline = time.monotonic() + PATIENCE
    while True:
        found = try_all(cases, sockets)
        if found == step["expected"]:
            return
        if time.monotonic() > deadline:
            wrong = list(differences(cases, step["expected"], found))
            sys.exit(f"{len(wrong)} are not as expected, among them {'; '.join(wrong[:5])}")


main()

"""How long a change takes until connections notice it: milliseconds, on standard output.

Usage: in_force.py ADDRESS PORT ANSWER ask SOCKET REQUEST FILE
       in_force.py ADDRESS PORT ANSWER run COMMAND…

The change is a request to the daemon, with FILE's content, over a connection that stands, as an agent's
does; or a command. From then on a connection is made after the other, until PATIENCE in a row of them were
answered ANSWER, so that a choice by chance is not taken for the change; the first of these counts.
"""

import json
import socket
import subprocess
import sys
import threading
import time

from control_socket import Client, encoded

PATIENCE = 20
LONGEST_SECONDS = 30


def main():
    address, port, answer, kind, *change = sys.argv[1:]
    if kind == "ask":
        path, request, file = change
        client = Client(path)
        with open(file) as content:
            body = encoded(request, json.load(content))
        work = threading.Thread(target=client.send, args=(request, body))
    else:
        work = threading.Thread(target=subprocess.run, args=(change,), kwargs={"check": True})
    began = time.monotonic()
    work.start()
    first, count = None, 0
    while count < PATIENCE:
        asked = time.monotonic()
        if asked - began > LONGEST_SECONDS:
            sys.exit(f"the change is not in force after {LONGEST_SECONDS} s")
        if fetch(address, int(port)) == answer:
            first = first if count else asked
            count += 1
        else:
            count = 0
    work.join()
    print(f"{(first - began) * 1000:.2f}")


def fetch(address, port):
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.sendall(b"?")
            return connection.recv(1).decode()
    except OSError:
        return None


main()

"""Tells a node its pod prefixes, as the cluster's agent does: `SOCKET PREFIX...`."""

import json
import socket
import struct
import sys


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            sys.exit("the daemon hung up")
        data += more
    return data


def main():
    path, prefixes = sys.argv[1], sys.argv[2:]
    message = {"version": 1, "message": {"request": "set-pod-prefixes", "with": prefixes}}
    body = json.dumps(message).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(struct.pack("!I", len(body)) + body)
        (length,) = struct.unpack("!I", exactly(connection, 4))
        answer = json.loads(exactly(connection, length))["message"]
    if "Ok" not in answer:
        sys.exit(f"the daemon refuses: {answer}")


main()

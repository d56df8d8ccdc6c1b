"""Asks a daemon something that vswitchctl has no words for: `[--when] SOCKET REQUEST [WITH]`, the last as JSON.

Prints what came with the answer, as JSON, or with --when only the time when it came, in seconds of
CLOCK_MONOTONIC; fails if the daemon refuses.
"""

import json
import socket
import struct
import sys
import time


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            sys.exit("the daemon hung up")
        data += more
    return data


def main():
    words = sys.argv[1:]
    asks_when = words[0] == "--when"
    if asks_when:
        words.pop(0)
    path, request, *payload = words
    message = {"request": request}
    if payload:
        message["with"] = json.loads(payload[0])
    body = json.dumps({"version": 1, "message": message}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(struct.pack("!I", len(body)) + body)
        (length,) = struct.unpack("!I", exactly(connection, 4))
        answer = json.loads(exactly(connection, length))["message"]
        came = time.monotonic()
    if "Ok" not in answer:
        sys.exit(f"the daemon refuses: {answer}")
    print(f"{came:.6f}" if asks_when else json.dumps(answer["Ok"].get("with")))


main()

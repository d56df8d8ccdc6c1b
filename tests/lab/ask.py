"""Asks a daemon something that vswitchctl has no words for: `SOCKET REQUEST [WITH]`, the last as JSON.

Prints what came with the answer, as JSON; fails if the daemon refuses.
"""

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
    path, request = sys.argv[1:3]
    message = {"request": request}
    if len(sys.argv) > 3:
        message["with"] = json.loads(sys.argv[3])
    body = json.dumps({"version": 1, "message": message}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(struct.pack("!I", len(body)) + body)
        (length,) = struct.unpack("!I", exactly(connection, 4))
        answer = json.loads(exactly(connection, length))["message"]
    if "Ok" not in answer:
        sys.exit(f"the daemon refuses: {answer}")
    print(json.dumps(answer["Ok"].get("with")))


main()

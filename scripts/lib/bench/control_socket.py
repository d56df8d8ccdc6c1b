"""A client of vswitchd's control socket: length and JSON, as api/src/codec.rs has it.

Usage: control_socket.py SOCKET REQUEST FILE    asks that with the content of the file, JSON
"""

import json
import socket
import struct
import sys


class Closed(SystemExit):
    """The daemon closed the connection before it answered: the end of a program that does not expect it."""


class Client:
    """A connection to the daemon; requests go one after the other."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def ask(self, request, content=None):
        return self.send(request, encoded(request, content))

    def send(self, request, body):
        self.socket.sendall(body)
        (length,) = struct.unpack("!I", self.read(4))
        answer = json.loads(self.read(length))["message"]
        if "Ok" not in answer:
            raise SystemExit(f"{request}: {answer['Err']['message']}")
        return answer["Ok"].get("with")

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise Closed("the daemon closed the connection")
            data += part
        return data


def encoded(request, content=None):
    message = {"request": request} | ({} if content is None else {"with": content})
    body = json.dumps({"version": 1, "message": message}).encode()
    return struct.pack("!I", len(body)) + body


def main():
    path, request, file = sys.argv[1:]
    with open(file) as content:
        Client(path).send(request, encoded(request, json.load(content)))


if __name__ == "__main__":
    main()

"""Fetches http://ADDRESS:PORT/PATH at about so many bytes a second, until SECONDS have passed, and
then without a limit to its end.

Prints `BYTES SHA256 GAP`: what came, and the longest time in milliseconds that it waited for more
bytes. The pace is the reader's: what it leaves in the socket's small buffer holds the sender back.

Usage: paced_transfer.py ADDRESS PORT PATH BYTES_PER_SECOND SECONDS
"""

import hashlib
import socket
import sys
import time

BUFFER_BYTES = 65536
CHUNK_BYTES = 32768


def main():
    address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    pause = CHUNK_BYTES / float(sys.argv[4])
    hurry_after = time.monotonic() + float(sys.argv[5])
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    stream.settimeout(30)
    stream.connect((address, port))
    stream.sendall(f"GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(1)
    if b" 200 " not in head.split(b"\r\n")[0]:
        sys.exit(f"the server answered {head!r}")
    digest, count, gap = hashlib.sha256(), 0, 0.0
    while True:
        asked = time.monotonic()
        data = stream.recv(CHUNK_BYTES)
        gap = max(gap, time.monotonic() - asked)
        if not data:
            break
        digest.update(data)
        count += len(data)
        if time.monotonic() < hurry_after:
            time.sleep(pause)
    print(count, digest.hexdigest(), round(gap * 1000))


main()

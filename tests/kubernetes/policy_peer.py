"""A pod of the policies' test: it serves ports, and tries others' when it is asked to.

Usage: policy_peer.py SOCKET PORT…

It answers on each port, by TCP and UDP, with what it was sent. On the unix socket it takes a line of JSON, a
list of [ADDRESS, PROTOCOL, PORT], tries all of them at once, and answers a line with 1 for each that
answers, and 0 for each that is silent for a second.
"""

import asyncio
import itertools
import json
import socket
import sys

SILENT = 1.0
WORD = b"hello\n"
FAMILIES = (socket.AF_INET, socket.AF_INET6)


async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class Asked(asyncio.DatagramProtocol):
    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, _address):
        if not self.answer.done():
            self.answer.set_result(data)


async def ask_tcp(address, port):
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(WORD)
        return await reader.readline() == WORD
    finally:
        writer.transport.abort()


async def ask_udp(address, port):
    loop = asyncio.get_running_loop()
    transport, asked = await loop.create_datagram_endpoint(Asked, remote_addr=(address, port))
    try:
        # A lost datagram is no refusal.
        while not asked.answer.done():
            transport.sendto(WORD)
            await asyncio.wait([asked.answer], timeout=SILENT / 4)
        return asked.answer.result() == WORD
    finally:
        transport.close()


async def answers(address, protocol, port):
    ask = ask_tcp if protocol == "TCP" else ask_udp
    try:
        return await asyncio.wait_for(ask(address, port), SILENT)
    except (OSError, asyncio.TimeoutError):
        return False


async def asked(reader, writer):
    targets = json.loads(await reader.readline())
    found = await asyncio.gather(*(answers(*target) for target in targets))
    writer.write("".join("1" if one else "0" for one in found).encode() + b"\n")
    await writer.drain()
    writer.close()


def listener(family, kind, port):
    own = socket.socket(family, kind)
    if family == socket.AF_INET6:
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.bind(("", port))
    own.setblocking(False)
    return own


async def main(path, ports):
    loop = asyncio.get_running_loop()
    for port in ports:
        for family, kind in itertools.product(FAMILIES, (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            own = listener(family, kind, port)
            if kind == socket.SOCK_STREAM:
                await asyncio.start_server(echo, sock=own)
            else:
                await loop.create_datagram_endpoint(Echo, sock=own)
    await asyncio.start_unix_server(asked, path, limit=1 << 20)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))

"""The load on a Service whose backends are replaced: what each request was answered by, and what failed.

service_load.py serve NAME PORT      answers each line over TCP, and each datagram, by NAME and what was sent
service_load.py load ADDRESS PORT    until SIGTERM: connections that are held and used, new ones that make one
                                     exchange each, datagrams of flows that stay and of new ones

A line for each request: `BEGUN KIND BACKEND`, KIND being `connection`, `datagram`, `held` (a connection is held
from here on) or `exchange` (one on it); `BEGUN broken BACKEND WHY` for one that was held; `BEGUN failed KIND WHY`.
BEGUN is when the client began it, in seconds of CLOCK_MONOTONIC: a machine that is slow makes no request later
than it was.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time

HELD_CONNECTIONS = 16
HELD_FLOWS = 8
# Between two requests of a kind.
INTERVAL_SECONDS = 0.01
# Between two exchanges on a connection that is held.
EXCHANGE_SECONDS = 0.05
PATIENCE_SECONDS = 5


def note(begun, *words):
    print(f"{begun:.6f}", *words, flush=True)


class Echo(asyncio.DatagramProtocol):
    """A server's: each datagram comes back behind the server's name."""

    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(self.name + b" " + data, peer)


async def serve(name, port):
    async def connection(reader, writer):
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(name + b" " + line)
        writer.close()

    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Echo(name), ("::", port))
    # Of asyncio's own making it would take no IPv4.
    listener = socket.create_server(("", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)
    server = await asyncio.start_server(connection, sock=listener)
    await server.serve_forever()


async def exchange(reader, writer, number):
    """The name of the server that answers."""
    writer.write(b"%d\n" % number)
    line = await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)
    name, _, rest = line.partition(b" ")
    if rest != b"%d\n" % number:
        raise ConnectionError(f"{line!r} instead of {number}")
    return name.decode()


async def connect(address, port):
    return await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE_SECONDS)


def why(error):
    return str(error) or type(error).__name__


class Load:
    def __init__(self, address, port):
        self.address, self.port = address, port
        self.number = 0

    def next(self):
        self.number += 1
        return self.number

    async def hold(self):
        """A connection, and another whenever one breaks."""
        while True:
            backend, begun = None, time.monotonic()
            try:
                reader, writer = await connect(self.address, self.port)
                while True:
                    name = await exchange(reader, writer, self.next())
                    note(begun, "exchange" if backend else "held", name)
                    if backend not in (None, name):
                        raise ConnectionError(f"{name} answered for {backend}")
                    backend = name
                    await asyncio.sleep(EXCHANGE_SECONDS)
                    begun = time.monotonic()
            except (OSError, TimeoutError) as error:
                if backend:
                    note(begun, "broken", backend, why(error))
                else:
                    note(begun, "failed", "held", why(error))
                    await asyncio.sleep(EXCHANGE_SECONDS)

    async def connection(self):
        begun = time.monotonic()
        try:
            reader, writer = await connect(self.address, self.port)
            note(begun, "connection", await exchange(reader, writer, self.next()))
            writer.close()
        except (OSError, TimeoutError) as error:
            note(begun, "failed", "connection", why(error))

    async def datagram(self, flow):
        """One on that flow, which has no other under way."""
        number, begun = self.next(), time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(flow, b"%d" % number)
            answer = await asyncio.wait_for(loop.sock_recv(flow, 64), PATIENCE_SECONDS)
            name, _, rest = answer.partition(b" ")
            if rest != b"%d" % number:
                raise ConnectionError(f"{answer!r} instead of {number}")
            note(begun, "datagram", name.decode())
        except (OSError, TimeoutError) as error:
            note(begun, "failed", "datagram", why(error))

    def flow(self):
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        flow = socket.socket(family, socket.SOCK_DGRAM)
        flow.setblocking(False)
        flow.connect((self.address, self.port))
        return flow

    async def hold_flow(self):
        flow = self.flow()
        while True:
            await self.datagram(flow)
            await asyncio.sleep(INTERVAL_SECONDS * HELD_FLOWS)

    async def new_flow(self):
        with self.flow() as flow:
            await self.datagram(flow)

    async def begin_new(self):
        """New connections and flows, whether those before have ended or not."""
        under_way = set()
        while True:
            for request in (self.connection(), self.new_flow()):
                task = asyncio.create_task(request)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        held = (self.hold() for _ in range(HELD_CONNECTIONS))
        flows = (self.hold_flow() for _ in range(HELD_FLOWS))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*held, *flows, self.begin_new())


match sys.argv[1:]:
    case ["serve", name, port]:
        asyncio.run(serve(name.encode(), int(port)))
    case ["load", address, port]:
        asyncio.run(Load(address, int(port)).run())
    case _:
        sys.exit(__doc__)

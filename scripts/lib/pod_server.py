"""What runs in each pod: an HTTP server that says who asked, and gives a file.

/who   answers `CLIENT SERVER`, the two addresses of the connection as this end sees them.
/blob  answers the file named on the command line; /blob/N, the same N times over.

Usage: pod_server.py PORT FILE
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def plain(address):
    """An IPv4 address as such, not as the IPv6 socket shows it."""
    return address.removeprefix("::ffff:")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        times = 1
        if self.path == "/who":
            client = plain(self.client_address[0])
            server = plain(self.connection.getsockname()[0])
            body = f"{client} {server}\n".encode()
        elif self.path == "/blob":
            with open(sys.argv[2], "rb") as file:
                body = file.read()
        elif self.path.startswith("/blob/"):
            with open(sys.argv[2], "rb") as file:
                body, times = file.read(), int(self.path.removeprefix("/blob/"))
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) * times))
        self.end_headers()
        for _ in range(times):
            self.wfile.write(body)

    def log_message(self, *_arguments):
        """Silent: every request is a check, and the check speaks."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 64
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", self.server_address[1]


Server(("::", int(sys.argv[1])), Handler).serve_forever()

"""A TCP connection that is held and used all the time: the part of somebody's ssh session.

held_connection.py serve PORT          echoes
held_connection.py hold ADDRESS PORT [SECONDS]
                                       sends a line twenty times a second and waits for its echo,
                                       until SIGINT; fails as soon as one takes so long, or a second
"""

import signal
import socket
import sys
import threading
import time


def serve(port):
    listener = socket.create_server(("", port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=[connection], daemon=True).start()


def echo(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def hold(address, port, patience):
    # A job in the background may have been started with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection = socket.create_connection((address, port), timeout=patience)
    exchanged = 0
    try:
        while True:
            line = b"%d\n" % exchanged
            connection.sendall(line)
            if connection.recv(64) != line:
                sys.exit(f"after {exchanged} exchanges the echo was not what was sent")
            exchanged += 1
            time.sleep(0.05)
    except KeyboardInterrupt:
        print(f"held for {exchanged} exchanges")
    except OSError as error:
        sys.exit(f"after {exchanged} exchanges: {error}")


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    hold(sys.argv[2], int(sys.argv[3]), float((sys.argv[4:] or [1])[0]))

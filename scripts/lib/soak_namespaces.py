"""Network namespaces of a soak: made, entered, marked and removed.

Enters: names below /run/netns. Leaves: namespaces, and sockets in them. A name is appended to a
file before its namespace is made, so that the lab removes it whatever becomes of us.
"""

import contextlib
import ctypes
import os
import socket
import subprocess

CLONE_NEWNET = 0x40000000
DIRECTORY = "/run/netns"

libc = ctypes.CDLL(None, use_errno=True)


def path(name):
    return os.path.join(DIRECTORY, name)


@contextlib.contextmanager
def inside(name):
    """The calling thread is in that namespace meanwhile; what it opens stays there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def enter(descriptor):
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")


def add(name, register):
    """The register holds names without the lab's prefix, `vsw-ID-`."""
    with open(register, "a", encoding="ascii") as names:
        names.write(short(name) + "\n")
    ip("netns", "add", name)


def short(name):
    """The last part of vsw-ID-PART; an id may have a dash of its own, a part of ours has none."""
    return name.rsplit("-", 1)[1]


def mark(name):
    """Gives it a number in our own namespace, which the kernel takes back when it has ended."""
    ip("netns", "set", name, "auto")


def marks():
    """How many namespaces have such a number."""
    return sum(line.startswith("nsid ") for line in ip("netns", "list-id").splitlines())


def delete(name):
    ip("netns", "delete", name)


def interfaces(name):
    with inside(name):
        return {interface for _, interface in socket.if_nameindex()}


def ip(*arguments):
    done = subprocess.run(("ip",) + arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

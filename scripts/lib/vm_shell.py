"""Runs one command in the VM by way of its second serial port, which qemu offers as a unix socket:
prints what the command says and ends with its exit code.

The other end is scripts/lib/vm_init.sh, which reads `TOKEN COMMAND`, and writes `TOKEN begin`, the
command's output and `TOKEN CODE`.

Usage: vm_shell.py SOCKET COMMAND
"""

import fcntl
import os
import socket
import sys

# A little more than the VM itself grants a command.
PATIENCE_S = 70

path, command = sys.argv[1:]
token = f"run-{os.getpid()}"
# The port has one line; commands wait for one another.
lock = open(f"{path}.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with socket.socket(socket.AF_UNIX) as port:
    port.settimeout(PATIENCE_S)
    try:
        port.connect(path)
        port.sendall(f"{token} {command}\n".encode())
        begun = False
        for line in port.makefile("r", errors="replace", newline="\n"):
            # The token may follow an output that does not end its line.
            before, found, rest = line.rstrip("\n").partition(f"{token} ")
            if not found:
                if begun:
                    print(line, end="")
            elif rest == "begin":
                begun = True
            else:
                print(before, end="")
                sys.exit(int(rest))
    except OSError as error:
        sys.exit(f"the VM does not answer on {path}: {error}")
sys.exit("the VM went away")

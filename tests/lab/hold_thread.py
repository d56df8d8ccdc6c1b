"""Holds one thread of a process, as a debugger does; the others go on.

hold_thread.py PID NAME   until it is killed
"""

import ctypes
import os
import signal
import sys

# include/uapi/linux/ptrace.h
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207


def thread_of(pid, name):
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm") as comm:
            if comm.read().strip() == name:
                return int(tid)
    sys.exit(f"process {pid} has no thread {name}")


def main():
    tid = thread_of(sys.argv[1], sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, tid, None, None) < 0:
            sys.exit(f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")
    # The kernel lets go of it when this process ends.
    signal.pause()


main()

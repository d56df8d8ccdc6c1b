"""Another program that takes a NIC's XDP hook: detaches what is there, attaches its own, and keeps it.

foreign_xdp.py INTERFACE    prints a line once it has the hook; until it is killed
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

BPF_PROG_LOAD, BPF_LINK_CREATE = 5, 28
PROG_TYPE_XDP, ATTACH_XDP = 6, 37
SKB_MODE = 2
SYS_BPF = 321


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, buffer, len(attributes))
    return fd if fd >= 0 else None


def load():
    # r0 = XDP_PASS; exit
    code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("IIQQIIQII", PROG_TYPE_XDP, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0)
    return bpf(BPF_PROG_LOAD, attributes.ljust(72, b"\0"))


def detach(interface):
    shown = json.loads(subprocess.check_output(["ip", "-json", "-details", "link", "show", "dev", interface]))
    program = shown[0].get("xdp", {}).get("prog", {}).get("id")
    for link in json.loads(subprocess.check_output(["bpftool", "-j", "link"])):
        if link.get("prog_id") == program:
            subprocess.check_call(["bpftool", "link", "detach", "id", str(link["id"])])


def main(interface):
    program, index = load(), socket.if_nametoindex(interface)
    for _ in range(50):
        detach(interface)
        # Attached to the kernel's stack, as there may be another in the driver.
        if bpf(BPF_LINK_CREATE, struct.pack("IIII", program, index, ATTACH_XDP, SKB_MODE)) is not None:
            print("has it", flush=True)
            signal.pause()
        time.sleep(0.02)
    sys.exit(f"{interface}: its hook is not to be had: {os.strerror(ctypes.get_errno())}")


main(sys.argv[1])

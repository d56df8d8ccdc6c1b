"""Another program that takes hooks of a NIC, and keeps them until it is killed. It prints a line once it has them.

foreign_programs.py INTERFACE xdp    detaches what is at the XDP hook, and attaches its own
foreign_programs.py INTERFACE tc     attaches as many programs to tc's ingress as the kernel takes
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
XDP, CLASSIFIER = 6, 3
AT_XDP, AT_TC_INGRESS = 37, 46
SKB_MODE = 2
XDP_PASS, TC_NEXT = 2, -1
SYS_BPF = 321


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, buffer, len(attributes))
    return fd if fd >= 0 else None


def load(kind, result):
    # r0 = result; exit
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, result, 0x95, 0, 0, 0)
    code, licence = ctypes.create_string_buffer(code, 16), ctypes.create_string_buffer(b"GPL")
    pointers = ctypes.addressof(code), ctypes.addressof(licence)
    return bpf(BPF_PROG_LOAD, struct.pack("IIQQ", kind, 2, *pointers).ljust(72, b"\0"))


def attach(program, index, hook, flags):
    return bpf(BPF_LINK_CREATE, struct.pack("IIII", program, index, hook, flags))


def detach(interface):
    shown = json.loads(subprocess.check_output(["ip", "-json", "-details", "link", "show", "dev", interface]))
    program = shown[0].get("xdp", {}).get("prog", {}).get("id")
    for link in json.loads(subprocess.check_output(["bpftool", "-j", "link"])):
        if link.get("prog_id") == program:
            subprocess.check_call(["bpftool", "link", "detach", "id", str(link["id"])])


def takes_xdp(interface, index):
    program = load(XDP, XDP_PASS)
    for _ in range(50):
        detach(interface)
        # Attached to the kernel's stack, as there may be another in the driver.
        if attach(program, index, AT_XDP, SKB_MODE) is not None:
            return True
        time.sleep(0.02)
    return False


def fills_tc(index):
    attached = 0
    while attach(load(CLASSIFIER, TC_NEXT), index, AT_TC_INGRESS, 0) is not None:
        attached += 1
    return attached > 0


def main(interface, hook):
    index = socket.if_nametoindex(interface)
    if not (takes_xdp(interface, index) if hook == "xdp" else fills_tc(index)):
        sys.exit(f"{interface}: {hook} is not to be had: {os.strerror(ctypes.get_errno())}")
    print("has it", flush=True)
    signal.pause()


main(*sys.argv[1:])

# shellcheck shell=bash
# Whether this machine can hold a lab. Sourced after report.sh.

# Prints what is missing for a lab, or nothing.
lab_lacks() {
    ((EUID == 0)) || { say "root"; return; }
    [[ -c /dev/net/tun ]] || { say "/dev/net/tun"; return; }
    unshare -n true 2>/dev/null || { say "the permission to make network namespaces"; return; }
    unshare -n ip link add name probe0 type veth peer name probe1 2>/dev/null ||
        { say "veth in the kernel"; return; }
    unshare -n ip link add name probe0 type bridge 2>/dev/null ||
        { say "bridge in the kernel"; return; }
    unshare -n nft list tables >/dev/null 2>&1 || { say "nftables in the kernel"; return; }
    # 44 is AF_XDP.
    /usr/bin/python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW, 0)' 2>/dev/null ||
        say "AF_XDP sockets in the kernel"
}

# Prints what is missing for the kernel's VXLAN as a peer, or nothing.
kernel_vxlan_lacks() {
    unshare -n ip link add name probe0 type vxlan id 1 dstport 4789 2>/dev/null ||
        say "vxlan in the kernel"
}

# uplink_lacks KIND: prints what is missing for an uplink of that kind beside what the lab needs, or nothing.
uplink_lacks() {
    [[ $1 == offload ]] || return 0
    # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; 0x1e7: checksums, TSO and USO, and both inside of UDP tunnels.
    unshare -n /usr/bin/python3 -c '
import fcntl, os, struct
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"probe0", 0x5002))
fcntl.ioctl(tap, 0x400454D0, 0x1E7)' 2>/dev/null ||
        say "superframes inside of UDP tunnels in the kernel (Linux 6.17)"
}

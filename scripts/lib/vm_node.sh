# shellcheck shell=bash
# node-v: a node in a virtual machine, by qemu's software emulation, whose kernel speaks IPIP or VXLAN
# as Calico's and flannel's nodes do, with a pod v1 behind it. qemu runs in the router's namespace,
# and a TAP there is the wire from the VM's NIC into lan-a. The VM's side is vm_init.sh.
# Sourced after nodes.sh and vm_image.sh.

readonly VM_POD4=198.18.4.2 VM_POD6=fd00:18:4::2
# One of the VM's own choosing, as a kernel's is.
readonly VM_VTEP_MAC=3e:18:04:00:00:0e
# It powers off by itself after that, whatever became of who started it.
VM_LIFETIME_S=900

# Prints what is missing for the VM, or nothing.
vm_lacks() {
    [[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] || say "a Debian for amd64"
}

# vm_node_up MODE POD_MTU PEER…: starts it; vm_node_ready waits until it is up.
vm_node_up() {
    local dir=$LAB_DIR/vm
    mkdir -p "$dir/root/config" "$dir/root/www/cgi-bin"
    blob
    vm_node_files "$dir/root" "$@"
    vm_pack "$VM_IMAGE/busybox" "$dir/root" "$dir/own.gz"
    cat "$VM_IMAGE/base.gz" "$dir/own.gz" >"$dir/initramfs"
    in_ip router tuntap add to-node-v mode tap
    in_ip router link set to-node-v master "${HOST_LAN[node-v]}" up
    # A NIC that leaves nothing unfinished; and no keyboard, disk, display or boot ROM.
    lab_spawn vm-node-v router qemu-system-x86_64 \
        -accel tcg -cpu max -smp 1 -m 256 -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$VM_IMAGE/vmlinuz" -initrd "$dir/initramfs" \
        -append 'console=ttyS0 quiet panic=-1' \
        -netdev tap,id=lan,ifname=to-node-v,script=no,downscript=no,vnet_hdr=off \
        -device virtio-net-pci,netdev=lan,mac=02:76:00:00:00:0e,romfile= \
        -serial "file:$LAB_DIR/logs/vm-console.log" \
        -serial "unix:$dir/shell,server=on,wait=off"
}

# vm_node_files DIR MODE POD_MTU PEER…: what this lab adds to the image.
vm_node_files() {
    local dir=$1 mode=$2 mtu=$3 peer
    shift 3
    cp "$root/scripts/lib/vm_init.sh" "$dir/init"
    cp "$LAB_DIR/blob" "$dir/www/blob"
    cp "$root/scripts/lib/vm_who.sh" "$dir/www/cgi-bin/who"
    chmod +x "$dir/init" "$dir/www/cgi-bin/who"
    cat >"$dir/config/node" <<SH
MODE=$mode LIFETIME_S=$VM_LIFETIME_S POD_MTU=$mtu VNI=$VNI VTEP_MAC=$VM_VTEP_MAC
ADDRESS=${HOST_ADDRESS[node-v]} PREFIX_BITS=25 GATEWAY=${LAN_GATEWAY[${HOST_LAN[node-v]}]}
GATEWAY4=$(gateway4 node-v) GATEWAY6=$(gateway6 node-v)
SELF4=${POD_PREFIX4[node-v]%/*} SELF6=${POD_PREFIX6[node-v]%/*} POD4=$VM_POD4 POD6=$VM_POD6
SH
    for peer in "$@"; do
        printf '%s %s %s %s\n' "${HOST_ADDRESS[$peer]}" "${POD_PREFIX4[$peer]}" \
            "${POD_PREFIX6[$peer]}" "$(vtep_mac_of "$peer")"
    done >"$dir/config/peers"
    printf '%s\n' "$VM_POD4" >"$LAB_DIR/addresses/v1.4"
    printf '%s\n' "$VM_POD6" >"$LAB_DIR/addresses/v1.6"
}

vm_node_ready() {
    wait_until 120 vm_settled || true
    grep -a '^node-v is ready' "$LAB_DIR/logs/vm-console.log" && return 0
    say "The VM did not come up; the end of its console:" >&2
    tail -n 20 "$LAB_DIR/logs/vm-console.log" "$LAB_DIR/logs/vm-node-v.log" >&2
    return 1
}

# It is up, or it will not be any more.
vm_settled() {
    lab_gone vm-node-v || grep -aq '^node-v is ready' "$LAB_DIR/logs/vm-console.log"
}

# in_vm COMMAND…: on node-v.
in_vm() { /usr/bin/python3 "$root/scripts/lib/vm_shell.py" "$LAB_DIR/vm/shell" "${*@Q}"; }

# at NAME COMMAND…: wherever that node or pod is, in the VM or in a namespace of the lab.
at() {
    local name=$1
    shift
    case $name in
        node-v) in_vm "$@" ;;
        v1) in_vm ip netns exec v1 "$@" ;;
        *) in_ns "$name" "$@" ;;
    esac
}

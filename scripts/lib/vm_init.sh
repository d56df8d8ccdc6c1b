#!/bin/dash
# /init of the VM that plays node-v: a node whose only network is the kernel's own, with a pod v1
# behind it. Reads /config/node and /config/peers, which vm_node.sh wrote; offers a shell on the
# second serial port to vm_shell.py; powers off after LIFETIME_S whatever happens.
set -eu
export PATH=/bin
/bin/busybox --install -s /bin
# Filled by /config/node.
MODE='' ADDRESS='' PREFIX_BITS='' GATEWAY='' LIFETIME_S='' VNI='' VTEP_MAC='' POD_MTU=''
GATEWAY4='' GATEWAY6='' SELF4='' SELF6='' POD4='' POD6=''

main() {
    mount -t devtmpfs dev /dev
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t tmpfs run /run
    # shellcheck source=/dev/null
    . /config/node
    (sleep "$LIFETIME_S" && poweroff -f) &
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    for module in virtio_pci virtio_net veth; do modprobe "$module"; done
    underlay
    case $MODE in
        ipip) ipip ;;
        vxlan) vxlan ;;
    esac
    pod
    echo "node-v is ready: $MODE, Linux $(uname -r)"
    shell </dev/ttyS1 >/dev/ttyS1
}

underlay() {
    # The driver's device appears a moment after its module.
    until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.1; done
    ip link set lo up
    ip address add "$ADDRESS/$PREFIX_BITS" dev eth0
    ip link set eth0 up
    ip route add default via "$GATEWAY"
}

# As Calico has it: one device without a far end; the route names it. IPv6 inside is RFC 4213's, with
# a device for each far end, because sit0 keeps the next hop of whichever it sent to first.
ipip() {
    modprobe ipip
    modprobe sit
    ip link set tunl0 mtu "$POD_MTU" up
    ip address add "$SELF4/32" dev tunl0
    sit=0
    while read -r peer prefix4 prefix6 _; do
        ip route add "$prefix4" via "$peer" dev tunl0 onlink
        sit=$((sit + 1))
        ip link add "sit$sit" type sit local "$ADDRESS" remote "$peer" ttl 64
        ip link set "sit$sit" mtu "$POD_MTU" up
        ip -6 route add "$prefix6" dev "sit$sit"
    done </config/peers
}

# As flannel has it: nothing learned; route, neighbour and FDB entry for each far node. The network's
# own address stands for the far VTEP.
vxlan() {
    modprobe vxlan
    ip link add vxlan0 address "$VTEP_MAC" type vxlan id "$VNI" dev eth0 dstport 4789 nolearning
    ip link set vxlan0 mtu "$POD_MTU" up
    ip address add "$SELF4/32" dev vxlan0
    ip address add "$SELF6/128" dev vxlan0
    while read -r peer prefix4 prefix6 mac; do
        ip neigh add "${prefix4%/*}" lladdr "$mac" dev vxlan0 nud permanent
        ip -6 neigh add "${prefix6%/*}" lladdr "$mac" dev vxlan0 nud permanent
        bridge fdb add "$mac" dev vxlan0 dst "$peer"
        ip route add "$prefix4" via "${prefix4%/*}" dev vxlan0 onlink
        ip -6 route add "$prefix6" via "${prefix6%/*}" dev vxlan0 onlink
    done </config/peers
}

pod() {
    ip netns add v1
    # The node's end takes whatever the pod sends: what is too big is for the tunnel to say.
    ip link add v1 mtu 9000 type veth peer name eth0 mtu "$POD_MTU" netns v1
    ip address add "$GATEWAY4/24" dev v1
    ip address add "$GATEWAY6/64" dev v1
    ip link set v1 up
    ip -n v1 link set lo up
    ip -n v1 address add "$POD4/24" dev eth0
    ip -n v1 address add "$POD6/64" dev eth0
    ip -n v1 link set eth0 up
    ip -n v1 route add default via "$GATEWAY4"
    ip -n v1 -6 route add default via "$GATEWAY6"
    ip netns exec v1 httpd -p 8080 -h /www
}

# Reads `TOKEN COMMAND`; no command lasts longer than a minute.
shell() {
    stty raw -echo
    while read -r token command; do
        echo "$token begin"
        code=0
        timeout 60 dash -c "$command" </dev/null 2>&1 || code=$?
        echo "$token $code"
    done
}

main

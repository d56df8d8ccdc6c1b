#!/bin/bash
# `nft` is slow, or hangs: pods come and go, STATUS and `status` are answered; a pod with a hostPort is answered once
# it has that, or is refused with the reason. An nft that hangs is killed and named, and everything is as it should be
# once it does its work again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local daemon
    setup_binaries
    lab_trap
    lab_create
    slow_nft_made
    underlay_up
    underlay_attach_node node-a
    VSWITCHD_UNDER=(PATH="$LAB_DIR/slow:$PATH")
    node_up node-a vxlan
    daemon=$(lab_pid vswitchd-node-a)
    pod_plug node-a a1
    nft_takes 8
    unnoticed
    refused_for_now
    nft_takes 1
    check "once nft has done what was left" wait_until 40 no_attention 'nft has been running'
    check "ADD with a hostPort waits for an nft that takes 1 s" plug_mapped a4
    check "and then has it" has_host_port
    nft_hangs
    check "the daemon is the same all the time" test "$(lab_pid vswitchd-node-a)" = "$daemon"
    report_end
}

# The daemon's nft: sleeps for as long as the file tells. The filter of the thread that runs it knows what a shell and
# sleep call, and not what cat does.
slow_nft_made() {
    mkdir "$LAB_DIR/slow"
    cat >"$LAB_DIR/slow/nft" <<NFT
#!/bin/sh
read -r seconds <'$LAB_DIR/slow/seconds'
sleep "\$seconds"
exec $(command -v nft) "\$@"
NFT
    chmod 0755 "$LAB_DIR/slow/nft"
    nft_takes 0
}

nft_takes() { printf '%s\n' "$1" >"$LAB_DIR/slow/seconds"; }

# Each looks at what nft is to show, and so begins a run of eight seconds, or is behind one.
unnoticed() {
    local round
    for round in 1 2; do
        check "status is answered while nft sleeps, time $round" timeout 3 "$bin/vswitchctl" \
            --socket "$(node_socket node-a)" status
        check "and so is STATUS" status_in_time
    done
    check "an ADD without hostPorts" pod_plug node-a a2
    check "its pod reaches the other" pings a2 "$(address a1 4)"
    check "and DEL" pod_unplug node-a a2
    check "status tells what is waited for" wait_until 8 attention 'nft has been running for'
}

status_in_time() { CNI_EXTRA='{"cniVersion": "1.1.0"}' cni node-a STATUS none; }

refused_for_now() {
    lab_add_ns a3
    check "an ADD with a hostPort is told to try again" is_refused
    lab_delete_ns a3
}

is_refused() {
    if add_mapped a3 >"$LAB_DIR/refused"; then echo "it is added" && return 1; fi
    jq -e '.code == 11 and (.msg + .details | contains("nft has not set the hostPorts"))' "$LAB_DIR/refused" ||
        { cat "$LAB_DIR/refused" && return 1; }
}

add_mapped() { CNI_EXTRA=$(mapping) cni node-a ADD "$1"; }

plug_mapped() { CNI_EXTRA=$(mapping) pod_plug node-a "$1"; }

mapping() {
    printf '{"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}'
}

has_host_port() {
    in_ns node-a nft list map inet vswitch host_ports4 | finds "tcp . 8080 : $(address a4 4) . 80"
}

nft_hangs() {
    nft_takes 1000
    check "an nft that hangs is killed, and named" wait_until 40 attention 'did not end within 10 s and was killed'
    check "pods come meanwhile" pod_plug node-a a5
    check "DEL of the one with a hostPort" pod_unplug node-a a4
    nft_takes 0
    kill -HUP "$(lab_pid vswitchd-node-a)"
    check "its hostPort goes once nft does its work" wait_until 40 no_elements
    check "and nothing needs attention" wait_until 5 no_attention nft
}

no_elements() { ! in_ns node-a nft list table inet vswitch | grep elements; }

attention() { ctl node-a status --json | jq -e --arg words "$1" 'any(.warnings[]; contains($words))'; }

no_attention() { ! attention "$1"; }

main "$@"

# shellcheck shell=bash
# How long an ADD takes on a node, beside Debian's bridge and host-local, which have one family. Sourced after
# all.sh.

# ipv4_only NODE: its pods get no address of IPv6, from its next start on.
ipv4_only() { sed -i 's/, "fd00:[^"]*"//' "$(node_dir "$1")/vswitch.toml"; }

# add_times NODE SERIAL ROUNDS AT_ONCE: so many one after the other, then so many rounds of some at once, as
# scripts/lib/soak_add_time.py prints it.
add_times() {
    local node=$1 ours=$LAB_DIR/network.json theirs=$LAB_DIR/reference.json
    shift
    plugin_config "$node" >"$ours"
    jq -n --arg data "$LAB_DIR/host-local" '{
        cniVersion: "1.0.0", name: "reference", type: "bridge", bridge: "reference0", isGateway: true,
        ipam: {type: "host-local", dataDir: $data, ranges: [[{subnet: "198.19.0.0/24"}]]}
    }' >"$theirs"
    in_ns "$node" env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$root/scripts/lib/soak_add_time.py" \
        "$bin/vswitch-cni" "$ours" /usr/lib/cni/bridge "$theirs" "$(ns '')" "$LAB_DIR/namespaces" "$@"
}

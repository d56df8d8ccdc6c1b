#!/bin/bash
# scripts/install into a directory and out again. Needs neither root nor the real binaries.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
dest=$scratch/dest
conflist=etc/cni/net.d/10-vswitch.conflist

main() {
    local file running written
    mkdir "$scratch/bin"
    for file in vswitchd vswitchctl vswitch-cni; do
        printf '%s\n' "$file" >"$scratch/bin/$file"
        chmod +x "$scratch/bin/$file"
    done
    check "it installs" run
    for file in usr/local/sbin/vswitchd usr/local/sbin/vswitchctl opt/cni/bin/vswitch-cni; do
        check "$file is a program" test -x "$dest/$file"
        check "and the one that was built" grep -qx "${file##*/}" "$dest/$file"
    done
    for file in vswitchd.socket vswitchd.service vswitch-adjust.path vswitch-adjust.service; do
        check "the unit $file" cmp "$root/config/$file" "$dest/etc/systemd/system/$file"
    done
    check "what keeps NetworkManager off" \
        cmp "$root/config/NetworkManager/10-vswitch.conf" "$dest/etc/NetworkManager/conf.d/10-vswitch.conf"
    check "what keeps systemd-networkd off" \
        cmp "$root/config/networkd/05-vswitch.network" "$dest/etc/systemd/network/05-vswitch.network"
    for file in 'interface-name:vsw0' 'interface-name:vswup\*'; do
        check "NetworkManager leaves $file alone" \
            grep -q "^unmanaged-devices+=.*$file" "$dest/etc/NetworkManager/conf.d/10-vswitch.conf"
    done
    check "systemd-networkd leaves them alone" \
        grep -Pzq '\[Match\]\nName=vsw0 vswup\*\n\n\[Link\]\nUnmanaged=yes\n' \
        "$dest/etc/systemd/network/05-vswitch.network"
    check "nothing of this machine's interfaces is in what is packaged" \
        test ! -e "$dest/etc/sysctl.d/10-vswitch-accept-ra.conf"
    check "the conflist" cmp "$root/config/10-vswitch.conflist" "$dest/$conflist"
    check "the conflist is written last" test "$(last_installed)" = "$dest/$conflist"

    printf 'mine\n' >"$dest/etc/vswitch/vswitch.toml"
    exec {running}<"$dest/opt/cni/bin/vswitch-cni"
    written=$(stat -c %i "$dest/$conflist")
    printf 'a later version\n' >"$scratch/bin/vswitch-cni"
    check "it installs over itself" run
    check "a plugin that runs stays as it is" grep -qx vswitch-cni "/dev/fd/$running"
    check "and the next one is another" grep -qx 'a later version' "$dest/opt/cni/bin/vswitch-cni"
    check "the conflist is written in place" test "$(stat -c %i "$dest/$conflist")" = "$written"
    check "the plugin is there before the conflist" in_order opt/cni/bin/vswitch-cni "$conflist"
    check "the configuration stays as it was" grep -qx mine "$dest/etc/vswitch/vswitch.toml"
    check "nothing half written is left" test -z "$(find "$dest" -name '*.new')"

    check "it uninstalls" run --uninstall
    check "only the configuration is left" \
        test "$(find "$dest" -type f)" = "$dest/etc/vswitch/vswitch.toml"
    check "it uninstalls what is not there" run --uninstall
    report_end
}

run() { VSWITCH_BIN=$scratch/bin "$root/scripts/install" --destdir "$dest" "$@" >"$scratch/said"; }

# in_order FIRST SECOND: in what it said it did.
in_order() {
    sed -n "s|^  $dest/||p" "$scratch/said" | grep -xF -e "$1" -e "$2" | cmp -s - <(printf '%s\n' "$1" "$2")
}

# The last path in what it said it did.
last_installed() { sed -n "s|^  \($dest/.*\)|\1|p" "$scratch/said" | tail -n 1; }

main "$@"

# shellcheck shell=bash
# What a VM boots: Debian's kernel for clouds, which has every kind of tunnel as a module, and a base
# of an initramfs with the modules, busybox, dash, ip, bridge and ping. Nothing is installed: packages are
# fetched and unpacked into the user's cache, once for each version. Whatever is a lab's own, /init
# included, is added by vm_node.sh. Sourced after setup.sh.
#
# Leaves behind ~/.cache/vswitch/vm/VERSION with vmlinuz, base.gz and busybox, whole or not at all.

VM_IMAGE=
readonly VM_KERNEL=linux-image-cloud-amd64
readonly VM_MODULES=(virtio_pci virtio_net veth ipip sit vxlan)
# Not busybox's shell: it prefers its own ip and ping, which know neither tunnels nor DF.
readonly VM_PROGRAMS=(dash ip bridge ping)

# vm_image_ready: sets VM_IMAGE to that directory, and makes it if it is not there.
vm_image_ready() {
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/vswitch/vm version
    version=$(vm_image_version) || {
        step "Asking apt-get update for $VM_KERNEL"
        apt-get -q update >/dev/null 2>&1 || true
        version=$(vm_image_version) || die "apt knows no $VM_KERNEL; is this Debian for amd64?"
    }
    VM_IMAGE=$cache/$version
    [[ ! -d $VM_IMAGE ]] || return 0
    step "Fetching $(vm_kernel_package) and busybox-static, and making the VM's image of them (once)"
    mkdir -p "$cache"
    (
        flock 9
        # Whoever held the lock before may have made it, or may have been interrupted.
        [[ ! -d $VM_IMAGE ]] || exit 0
        rm -rf "$cache/part"
        mkdir "$cache/part"
        vm_image_make "$cache/part" >"$cache/part/log" 2>&1 || {
            tail -n 5 "$cache/part/log" >&2
            exit 1
        }
        rm -rf "$cache/part/work"
        mv "$cache/part" "$VM_IMAGE"
    ) 9>"$cache/lock" || die "The VM's image could not be made; the log is $cache/part/log"
}

# The package for which VM_KERNEL stands.
vm_kernel_package() {
    apt-cache depends "$VM_KERNEL" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p'
}

# Names the kernel's version, and this recipe's: another recipe makes another image.
vm_image_version() {
    local package version recipe
    package=$(vm_kernel_package)
    [[ -n $package ]] || return 1
    version=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p')
    recipe=$(sha256sum <"$root/scripts/lib/vm_image.sh" | cut -c 1-8)
    printf '%s_%s_%s' "${package#linux-image-}" "$version" "$recipe"
}

# vm_image_make DIR: everything into DIR, by way of DIR/work. Each step says itself what is next,
# because `set -e` does not hold where a failure is waited for.
vm_image_make() {
    local dir=$1 tree=$1/work/tree base=$1/work/base package program
    package=$(vm_kernel_package)
    mkdir -p "$tree" "$base"/{bin,dev,etc,proc,run,sys,tmp,www} &&
        vm_unpack "$1/work" "$tree" "$package" busybox-static &&
        cp "$tree"/boot/vmlinuz-* "$dir/vmlinuz" &&
        find "$tree" -path '*bin/busybox' -exec cp {} "$dir/" \;
    cp "$dir/busybox" "$base/bin/" || return 1
    for program in "${VM_PROGRAMS[@]}"; do
        vm_copy_program "$program" "$base" || return 1
    done
    vm_copy_modules "$dir/busybox" "$tree" "$base" "${package#linux-image-}" &&
        vm_pack "$dir/busybox" "$base" "$dir/base.gz"
}

# vm_unpack WORK TREE PACKAGE…: fetched into WORK, unpacked into TREE.
vm_unpack() {
    local work=$1 tree=$2 deb
    shift 2
    (cd "$work" && vm_download "$@") || return 1
    for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$tree" || return 1; done
}

# vm_download PACKAGE…: the lists may be older than the archive.
vm_download() {
    apt-get -q download "$@" || { apt-get -q update && apt-get -q download "$@"; }
}

# vm_copy_program PROGRAM BASE: with the libraries that it is linked to.
vm_copy_program() {
    local file library
    file=$(command -v "$1") || { echo "there is no program $1" && return 1; }
    cp -L "$file" "$2/bin/$1"
    while read -r library; do
        mkdir -p "$2$(dirname "$library")"
        cp -L "$library" "$2$library" || return 1
    done < <(ldd "$file" | grep -o '/[^ ]*')
}

# vm_copy_modules BUSYBOX TREE BASE RELEASE: VM_MODULES, and what they depend on.
vm_copy_modules() {
    local busybox=$1 from=$2/lib/modules/$4 to=$3/lib/modules/$4 name line file
    [[ -d $from ]] || from=$2/usr/lib/modules/$4
    "$busybox" depmod -b "${from%/lib/modules/*}" "$4" || return 1
    for name in "${VM_MODULES[@]}"; do
        line=$(grep -E "/$name\.ko[^:]*:" "$from/modules.dep") ||
            { echo "$4 has no module $name" && return 1; }
        for file in ${line/:/ }; do
            mkdir -p "$to/$(dirname "$file")"
            cp "$from/$file" "$to/$file" || return 1
        done
    done
    "$busybox" depmod -b "$3" "$4"
}

# vm_pack BUSYBOX DIR FILE: DIR as a part of an initramfs. Parts are joined by writing one after the
# other: the kernel unpacks each over the one before.
vm_pack() { (cd "$2" && find . | "$1" cpio -o -H newc -R 0:0 2>/dev/null | gzip -1) >"$3"; }

# shellcheck shell=bash
# Everything in this directory, in the order in which it builds on itself. Needs `root`, the
# repository; `setup_binaries` later sets `bin`.

: "${root:?the sourcing script sets it to the repository}"
bin=

# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"
# shellcheck source=scripts/lib/durations.sh
. "$root/scripts/lib/durations.sh"
# shellcheck source=scripts/lib/scenarios.sh
. "$root/scripts/lib/scenarios.sh"
# shellcheck source=scripts/lib/setup.sh
. "$root/scripts/lib/setup.sh"
# shellcheck source=scripts/lib/requirements.sh
. "$root/scripts/lib/requirements.sh"
# shellcheck source=scripts/lib/lab.sh
. "$root/scripts/lib/lab.sh"
# shellcheck source=scripts/lib/underlay.sh
. "$root/scripts/lib/underlay.sh"
# shellcheck source=scripts/lib/nodes.sh
. "$root/scripts/lib/nodes.sh"
# shellcheck source=scripts/lib/underlay6.sh
. "$root/scripts/lib/underlay6.sh"
# shellcheck source=scripts/lib/kernel_node.sh
. "$root/scripts/lib/kernel_node.sh"
# shellcheck source=scripts/lib/vm_image.sh
. "$root/scripts/lib/vm_image.sh"
# shellcheck source=scripts/lib/vm_node.sh
. "$root/scripts/lib/vm_node.sh"
# shellcheck source=scripts/lib/systemd_root.sh
. "$root/scripts/lib/systemd_root.sh"
# shellcheck source=scripts/lib/systemd_node.sh
. "$root/scripts/lib/systemd_node.sh"
# shellcheck source=scripts/lib/runtime_node.sh
. "$root/scripts/lib/runtime_node.sh"
# shellcheck source=scripts/lib/bgp.sh
. "$root/scripts/lib/bgp.sh"
# shellcheck source=scripts/lib/checks.sh
. "$root/scripts/lib/checks.sh"
# shellcheck source=scripts/lib/sizes.sh
. "$root/scripts/lib/sizes.sh"
# shellcheck source=scripts/lib/kubernetes_build.sh
. "$root/scripts/lib/kubernetes_build.sh"
# shellcheck source=scripts/lib/kubernetes_server.sh
. "$root/scripts/lib/kubernetes_server.sh"
# shellcheck source=scripts/lib/kubernetes.sh
. "$root/scripts/lib/kubernetes.sh"
# shellcheck source=scripts/lib/demo_cluster.sh
. "$root/scripts/lib/demo_cluster.sh"

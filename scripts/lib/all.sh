# shellcheck shell=bash
# What most scripts need of this directory, in the order in which it builds on itself. The others, each
# for a few, are sourced after it: shellcheck reads all that a script sources anew for that script.
# Needs `root`, the repository; `setup_binaries` later sets `bin`.

: "${root:?the sourcing script sets it to the repository}"
bin=

# shellcheck source=scripts/lib/report.sh
. "$root/scripts/lib/report.sh"
# shellcheck source=scripts/lib/machine.sh
. "$root/scripts/lib/machine.sh"
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
# shellcheck source=scripts/lib/checks.sh
. "$root/scripts/lib/checks.sh"
# shellcheck source=scripts/lib/sizes.sh
. "$root/scripts/lib/sizes.sh"

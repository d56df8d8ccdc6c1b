#!/bin/bash
# As kernel-vxlan.sh, over the uplink of kind `af_packet`: the kernel's VXLAN at the other end.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink af_packet "$root/tests/lab/kernel-vxlan.sh"

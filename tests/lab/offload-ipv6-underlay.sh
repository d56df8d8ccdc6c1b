#!/bin/bash
# As ipv6-underlay.sh, over the uplink of kind `offload`: VXLAN over IPv6, whose UDP checksums the kernel
# makes of what we began.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink offload "$root/tests/lab/ipv6-underlay.sh"

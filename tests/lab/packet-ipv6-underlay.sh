#!/bin/bash
# As ipv6-underlay.sh, over the uplink of kind `af_packet`: VXLAN over IPv6.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink af_packet "$root/tests/lab/ipv6-underlay.sh"

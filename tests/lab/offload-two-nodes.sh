#!/bin/bash
# As two-nodes.sh, over the uplink of kind `offload`: the demo, judged, for each encapsulation.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/offload_uplink.sh
. "$root/scripts/lib/offload_uplink.sh"
over_offload "$root/scripts/demo" vxlan ipip direct

#!/bin/bash
# As two-nodes.sh, over the uplink of kind `offload`: the demo, judged, for each encapsulation.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink offload "$root/scripts/demo" vxlan ipip direct

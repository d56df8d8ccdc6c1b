#!/bin/bash
# As restart.sh, over the uplink of kind `offload`: its TAP ends with the daemon, and is made again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink offload "$root/tests/lab/restart.sh"

#!/bin/bash
# As restart.sh, over the uplink of kind `af_packet`: its sockets end with the daemon, and are made again.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink af_packet "$root/tests/lab/restart.sh"

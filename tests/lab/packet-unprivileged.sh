#!/bin/bash
# As unprivileged.sh, over the uplink of kind `af_packet`: its filters and its program of tc need no more.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/over_uplink.sh
. "$root/scripts/lib/over_uplink.sh"
over_uplink af_packet "$root/tests/lab/unprivileged.sh"

#!/bin/bash
# The rules of pod networking between two nodes, for each encapsulation: the demo, judged.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
exec "$root/scripts/demo" vxlan ipip direct

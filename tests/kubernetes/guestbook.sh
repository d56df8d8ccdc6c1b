#!/bin/bash
# An application in a real cluster, through Services and with policies, while parts of it and of vSwitch die: as
# `scripts/demo guestbook` shows it.
# alone: a controller that lags by twenty seconds, as where others have the machine too, would decide whether requests
# fail while endpoints change
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/runtime_node.sh
. "$root/scripts/lib/runtime_node.sh"

lacks=$(runtime_node_lacks)
if [[ -n $lacks ]]; then
    skip "a cluster with kubelets" "its nodes need $lacks"
    report_end
    exit
fi
exec "$root/scripts/demo" guestbook

#!/bin/sh
# Writes numbered entries through the frontends' Service until /tmp/stop is there, and prints those that were
# acknowledged. What fails is tried again. /tmp/written has how many were written, /tmp/failed how often one failed.
#
# Usage: load.sh URL
number=0
failed=0
echo 0 >/tmp/failed
while [ ! -e /tmp/stop ]; do
    number=$((number + 1))
    until curl -sSf --max-time 5 -o /dev/null "$1?add=entry-$number"; do
        failed=$((failed + 1))
        echo "$failed" >/tmp/failed
        [ ! -e /tmp/stop ] || exit 0
    done
    echo "entry-$number"
    echo "$number" >/tmp/written
done

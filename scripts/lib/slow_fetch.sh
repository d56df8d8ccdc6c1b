#!/bin/sh
# Fetches a file at about 2 MB a second until /tmp/hurry is there, then as fast as it comes, and prints its
# SHA-256. /tmp/count has what was read so far. For busybox in a container.
#
# Usage: slow_fetch URL
part=/tmp/part.$$
wget -q -O - "$1" | while dd bs=65536 count=1 2>/dev/null >"$part" && [ -s "$part" ]; do
    cat "$part"
    [ -e /tmp/hurry ] && continue
    echo "$(($(cat /tmp/count 2>/dev/null || echo 0) + 1))" >/tmp/count
    usleep 30000
done | sha256sum
rm -f "$part"

#!/bin/sh
# Writes numbered entries through the frontends' Service until /tmp/stop is there, and reads all of them meanwhile until
# /tmp/stop-reads is. Prints the entries that were acknowledged. What fails is told with its time, and tried again.
# Files in /tmp count: `written` and `read` what went well, `failed-writes` and `failed-reads` what did not.
#
# Usage: load.sh URL

# counts FILE NUMBER: replaces the file at once, so that it holds a whole number at any time.
counts() { echo "$2" >"/tmp/$1.new" && mv "/tmp/$1.new" "/tmp/$1"; }

reads() {
    read=0
    failed=0
    while [ ! -e /tmp/stop-reads ]; do
        if curl -sSf --max-time 5 -o /dev/null "$1"; then
            read=$((read + 1))
            counts read "$read"
        else
            echo "a read at $(date +%T)" >&2
            failed=$((failed + 1))
            counts failed-reads "$failed"
        fi
    done
}

number=0
failed=0
for file in written read failed-writes failed-reads; do counts "$file" 0; done
reads "$1" &
while [ ! -e /tmp/stop ]; do
    number=$((number + 1))
    until curl -sSf --max-time 5 -o /dev/null "$1?add=entry-$number"; do
        echo "a write at $(date +%T)" >&2
        failed=$((failed + 1))
        counts failed-writes "$failed"
        [ ! -e /tmp/stop ] || break 2
    done
    echo "entry-$number"
    counts written "$number"
done
wait

# shellcheck shell=bash
# What is asked of a lab: servers in every namespace, ping and TCP from everyone to everyone, what
# the underlay saw. Sourced after nodes.sh.

readonly SERVER_PORT=8080
readonly BLOB_BYTES=2097152
# At most so many sources are checked at the same time.
readonly PARALLEL=4

# servers_up NAME…: an HTTP server in each namespace, over all its addresses; and the file it gives.
servers_up() {
    local name
    blob
    for name in "$@"; do
        lab_spawn "server-$name" "$name" \
            /usr/bin/python3 "$root/scripts/lib/pod_server.py" "$SERVER_PORT" "$LAB_DIR/blob"
    done
    for name in "$@"; do
        wait_until 10 listens "$name" "$SERVER_PORT" || die "The server in $name does not listen"
    done
}

# The file that is transferred, and its checksum.
blob() {
    [[ -f $LAB_DIR/blob ]] || head -c "$BLOB_BYTES" /dev/urandom >"$LAB_DIR/blob"
    sha256sum <"$LAB_DIR/blob" >"$LAB_DIR/blob.sha256"
}

# listens NAME PORT
listens() { [[ -n $(in_ns "$1" ss -Hltn "sport = :$2") ]]; }

# who_servers_up NAME…: one that tells over UDP who asks, in each namespace.
who_servers_up() {
    local name
    for name in "$@"; do
        lab_spawn "who-$name" "$name" \
            /usr/bin/python3 "$root/scripts/lib/udp_who.py" serve "$SERVER_PORT"
    done
    for name in "$@"; do
        wait_until 10 hears "$name" "$SERVER_PORT" || die "The UDP server in $name does not listen"
    done
}

# hears NAME PORT
hears() { [[ -n $(in_ns "$1" ss -Hlun "sport = :$2") ]]; }

# fetch_by_udp NAME ADDRESS: what the server there says.
fetch_by_udp() {
    in_ns "$1" /usr/bin/python3 "$root/scripts/lib/udp_who.py" ask "$2" "$SERVER_PORT"
}

# sees_by_udp NAME ADDRESS WANTED: as `sees`, with one packet each way.
sees_by_udp() {
    local seen
    seen=$(fetch_by_udp "$1" "$2") || return 1
    [[ $seen == "$3" ]] || { echo "the two ends see '$seen' instead of '$3'" && return 1; }
}

# url ADDRESS PATH
url() {
    if [[ $1 == *:* ]]; then
        printf 'http://[%s]:%s/%s' "$1" "$SERVER_PORT" "$2"
    else
        printf 'http://%s:%s/%s' "$1" "$SERVER_PORT" "$2"
    fi
}

# fetch NAME ADDRESS PATH: curl from that namespace.
fetch() { in_ns "$1" curl -sS --noproxy '*' --connect-timeout 2 --max-time 10 "$(url "$2" "$3")"; }

# pings NAME ADDRESS: two replies within two seconds.
pings() { in_ns "$1" ping -q -n -c 2 -i 0.2 -w 2 "$2"; }

# sees NAME ADDRESS WANTED: the server at ADDRESS reports `CLIENT SERVER` as WANTED.
sees() {
    local seen
    seen=$(fetch "$1" "$2" who) || return 1
    [[ $seen == "$3" ]] || { echo "the two ends see '$seen' instead of '$3'" && return 1; }
}

# transfers NAME ADDRESS: the file arrives whole.
transfers() {
    local sum
    sum=$(fetch "$1" "$2" blob | sha256sum) || return 1
    [[ $sum == "$(cat "$LAB_DIR/blob.sha256")" ]] || { echo "the file arrived damaged" && return 1; }
}

# talks FROM TO FAMILY: TCP with the same addresses at both ends, and a whole file.
talks() {
    local from to
    from=$(address "$1" "$3")
    to=$(address "$2" "$3")
    sees "$1" "$to" "$from $to" && transfers "$1" "$to"
}

# reaches FROM TO: all four; prints `✓` or `✗` for ping and TCP, each over IPv4 and IPv6.
reaches() {
    local family what cell=''
    for what in pings talks; do
        for family in 4 6; do
            if try_reach "$what" "$@" "$family" >"$LAB_DIR/matrix/$1.out" 2>&1; then
                cell+=✓
            else
                cell+=✗
                printf '%s %s %s IPv%s: %s\n' "$1" "$what" "$2" "$family" \
                    "$(tail -n 2 "$LAB_DIR/matrix/$1.out" | tr '\n' ' ')" >>"$LAB_DIR/logs/checks.log"
            fi
        done
    done
    printf '%s' "$cell"
}

# try_reach WHAT FROM TO FAMILY
try_reach() {
    case $1 in
        pings) pings "$2" "$(address "$3" "$4")" ;;
        talks) talks "$2" "$3" "$4" ;;
    esac
}

# A row of the matrix into matrix/FROM: `TO CELL`, in the order given.
matrix_row() {
    local from=$1 to cell
    shift
    for to in "$@"; do
        cell=·
        # Nodes reach one another over the underlay, which is not ours to prove.
        [[ $from == "$to" || ($from == node-* && $to == node-*) ]] || cell=$(reaches "$from" "$to")
        printf '%s %s\n' "$to" "$cell"
    done >"$LAB_DIR/matrix/$from"
}

# matrix NAME…: everyone to everyone, as a table; fails if a cell does.
matrix() {
    local name running=0
    rm -rf "$LAB_DIR/matrix"
    mkdir "$LAB_DIR/matrix"
    for name in "$@"; do
        if ((running >= PARALLEL)); then
            wait -n || true
            running=$((running - 1))
        fi
        matrix_row "$name" "$@" 2>>"$LAB_DIR/logs/checks.err" &
        running=$((running + 1))
    done
    wait
    matrix_print "$@"
}

# Prints the table and counts each row as one check.
matrix_print() {
    local from to cell bad broken=()
    printf '    %s' "$(pad '' 0 8)"
    for to in "$@"; do printf '%-8s' "$to"; done
    printf '\n'
    for from in "$@"; do
        bad=
        printf '    %-8s' "$from"
        while read -r to cell; do
            if [[ $cell == · ]]; then pad · 1 8; else pad "$cell" 4 8; fi
            [[ $cell != *✗* ]] || bad+=" $to"
        done <"$LAB_DIR/matrix/$from"
        printf '\n'
        [[ -z $bad ]] || broken+=("$from to$bad")
    done
    passed=$((passed + $# - ${#broken[@]}))
    for bad in "${broken[@]}"; do fail "$bad"; done
    ((${#broken[@]} == 0)) || sed 's/^/      /' "$LAB_DIR/logs/checks.log"
}

# accounts NODE: everything that the switch received or made, it sent or dropped; prints the sum.
# Tried for a while, because workers count one after the other while packets still come.
accounts() {
    wait_until 3 accounted "$1" || { ctl "$1" show drops && return 1; }
    ctl "$1" show drops --json |
        jq -r '"\(.received) received + \(.made) made = \(.sent) sent + \(.dropped) dropped"'
}

accounted() {
    ctl "$1" show drops --json |
        jq -e '.received > 0 and .received + .made == .sent + .dropped'
}

# wire FILTER PATTERN WHERE COMMAND…: what tcpdump sees at the router's interface WHERE while the
# command runs. Prints at most four packets; succeeds if they match the pattern.
wire() {
    local filter=$1 pattern=$2 where=$3 seen=$LAB_DIR/wire.txt log=$LAB_DIR/logs/tcpdump.log pid
    shift 3
    : >"$log"
    in_ns router timeout 10 tcpdump -nl -t -c 4 -i "$where" "$filter" >"$seen" 2>"$log" &
    pid=$!
    wait_until 5 grep -q 'listening on' "$log" || { cat "$log" && return 1; }
    "$@" >/dev/null 2>&1 || true
    # Whether four packets came or not, what came is judged.
    wait_until 2 gone "$pid" || kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    sed 's/^/    /' "$seen"
    # An inner packet may be on a line of its own.
    tr '\n' ' ' <"$seen" | grep -Eq "$pattern"
}

# finds WORD…: as `grep -q`, but it reads to the end: what writes to a pipe that is closed early is killed,
# and by pipefail that is a failure.
finds() { grep "$@" >/dev/null; }

gone() { ! kill -0 "$1" 2>/dev/null; }

# until_deadline SECONDS COMMAND…: a try that begins in time counts, however long it takes on a loaded
# machine.
until_deadline() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < deadline)) || return 1
        sleep 0.02
    done
}

# shellcheck shell=bash
# A Kubernetes API server to test against: etcd and kube-apiserver on one address of one network
# namespace, with certificates made for this run, and RBAC in force. Without controllers, scheduler
# or kubelets: nodes are objects that the test writes (kubernetes.sh).
#
# Leaves behind, while it stands: KUBE_DIR with pids/, logs/, etcd's data, pki/ and admin.kubeconfig.
# Whoever has opened a KUBE_DIR may call everything here. Sourced after lab.sh, whose pids it keeps,
# and kubernetes_build.sh.

KUBE_DIR=
# Where it listens, and the namespace's name ('' is the caller's); set by kube_up and kube_open.
KUBE_ADDRESS=127.0.0.1
KUBE_PORT=6443
KUBE_NETNS=

# Services are none of ours, but the server wants a prefix for them, in which no pod is.
readonly KUBE_SERVICE_PREFIX=198.19.255.0/24
# That of the server's own Service is the first.
kube_service_address() { printf '%s' "${KUBE_SERVICE_PREFIX%0/24}1"; }

# kube_up DIR [--address ADDRESS] [--port N] [--netns NAME]: starts both and returns once it is ready.
# etcd takes the two ports after N, on 127.0.0.1. The caller's exit has to call kube_down, unless DIR
# lies in a lab and the namespace is the lab's: then lab_down does it.
kube_up() {
    (umask 077 && mkdir -p "$1")
    [[ -z $(find "$1" -mindepth 1 -maxdepth 1 ! -type l) ]] || die "$1 is not empty"
    KUBE_DIR=$(realpath "$1")
    shift
    while (($#)); do
        case $1 in
            --address) KUBE_ADDRESS=${2:?--address needs an address} ;;
            --port) KUBE_PORT=${2:?--port needs a number} ;;
            --netns) KUBE_NETNS=${2:?--netns needs a name} ;;
            *) die "kube_up: there is no option $1" ;;
        esac
        shift 2
    done
    # An etcd of somebody else's would answer as ours.
    [[ -z $(kube_in ss -Hltn "sport >= :$KUBE_PORT and sport <= :$((KUBE_PORT + 2))") ]] ||
        die "Ports $KUBE_PORT to $((KUBE_PORT + 2)) are not free: choose others with --port"
    printf '%s %s %s\n' "$KUBE_ADDRESS" "$KUBE_PORT" "$KUBE_NETNS" >"$KUBE_DIR/server"
    mkdir -p "$KUBE_DIR/pids" "$KUBE_DIR/logs"
    kube_certificates
    kube_curl_options >"$KUBE_DIR/curl.conf"
    step "Starting etcd and kube-apiserver on $KUBE_ADDRESS port $KUBE_PORT"
    kube_start_etcd
    kube_start_api
    (umask 077 && kube_kubeconfig_of "$KUBE_DIR/pki/admin" >"$KUBE_DIR/admin.kubeconfig")
}

# kube_up_in_lab NAME [OPTION…]: in the namespace NAME of the lab that stands; it goes with the lab,
# and its logs are among the lab's.
kube_up_in_lab() {
    local name=$1
    shift
    mkdir -m 0700 "$LAB_DIR/kubernetes"
    ln -s ../pids ../logs "$LAB_DIR/kubernetes/"
    kube_up "$LAB_DIR/kubernetes" --netns "$(ns "$name")" "$@"
}

# kube_open DIR: one that stands.
kube_open() {
    [[ -f $1/server ]] || die "No API server stands in $1"
    KUBE_DIR=$(realpath "$1")
    read -r KUBE_ADDRESS KUBE_PORT KUBE_NETNS <"$KUBE_DIR/server"
}

# kube_down: ends both and removes KUBE_DIR.
kube_down() {
    [[ -n $KUBE_DIR && -f $KUBE_DIR/server ]] || return 0
    kube_lab lab_stop api-server
    kube_lab lab_stop etcd
    rm -rf "$KUBE_DIR"
    KUBE_DIR=
}

# kube_stop_api: ends kube-apiserver; etcd keeps what it knows. Clients' connections break.
kube_stop_api() { kube_lab lab_stop api-server; }

# kube_compact: makes every resourceVersion that a client can have expired: a watch from it is
# answered with 410. etcd forgets all revisions before a new one; and a server that runs is started
# again, because it would go on answering from its memory.
kube_compact() {
    local key revision running=''
    ! kube_lab lab_pid api-server >/dev/null || running=yes
    key=$(printf 'vswitch/compacted' | base64)
    # Nothing of Kubernetes is there; but the revision that is made is younger than any object's.
    revision=$(kube_etcd kv/put "{\"key\": \"$key\", \"value\": \"\"}" | jq -er .header.revision)
    kube_etcd kv/compaction "{\"revision\": \"$revision\", \"physical\": true}" >/dev/null
    [[ -n $running ]] || return 0
    kube_stop_api
    kube_start_api
}

# kube_etcd METHOD JSON: a request to etcd itself.
kube_etcd() {
    kube_in curl -sS --fail-with-body --noproxy '*' --max-time 30 --data "$2" \
        "http://127.0.0.1:$((KUBE_PORT + 1))/v3/$1"
}

kube_start_etcd() {
    local client peer fsync=()
    client=http://127.0.0.1:$((KUBE_PORT + 1))
    peer=http://127.0.0.1:$((KUBE_PORT + 2))
    # From 3.5 on; nothing here has to outlive the machine.
    ! etcd --help 2>&1 | grep -q -e --unsafe-no-fsync || fsync=(--unsafe-no-fsync)
    kube_spawn etcd etcd --name test --data-dir "$KUBE_DIR/etcd" "${fsync[@]}" \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "test=$peer"
    kube_await etcd kube_etcd kv/range '{"key": "AA=="}'
}

# kube_start_api: returns once it says that it is ready.
kube_start_api() {
    local binary pki=$KUBE_DIR/pki
    binary=$(kube_program kube-apiserver) || die "There is no kube-apiserver: run scripts/kubernetes-server build"
    # Endpoints of the server itself would need an address that is no loopback's.
    kube_spawn api-server "$binary" \
        --bind-address "$KUBE_ADDRESS" --secure-port "$KUBE_PORT" \
        --advertise-address "$KUBE_ADDRESS" --endpoint-reconciler-type none \
        --etcd-servers "http://127.0.0.1:$((KUBE_PORT + 1))" \
        --tls-cert-file "$pki/server.crt" --tls-private-key-file "$pki/server.key" \
        --client-ca-file "$pki/ca.crt" \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-signing-key-file "$pki/tokens.key" \
        --service-account-key-file "$pki/tokens.pub" \
        --service-cluster-ip-range "$KUBE_SERVICE_PREFIX" \
        --kubelet-preferred-address-types InternalIP --authorization-mode Node,RBAC --feature-gates IPv6DualStack=true --profiling=false
    kube_await api-server kube_curl "$(kube_url)/readyz"
}

# kube_await PROCESS COMMAND…: until it answers; not longer than it lives.
kube_await() {
    local process=$1
    shift
    wait_until 120 kube_settled "$process" "$@" && "$@" >/dev/null 2>&1 && return 0
    say "$process did not come up; the end of its log:" >&2
    tail -n 20 "$KUBE_DIR/logs/$process.log" >&2
    return 1
}

kube_settled() {
    kube_lab lab_gone "$1" || "${@:2}"
}

# kube_lab COMMAND…: one of lab.sh, about the processes in KUBE_DIR.
kube_lab() {
    local LAB_DIR=$KUBE_DIR
    "$@"
}

# kube_in COMMAND…: in the server's namespace.
kube_in() {
    if [[ -n $KUBE_NETNS ]]; then
        nsenter --net="/run/netns/$KUBE_NETNS" -- "$@"
    else
        "$@"
    fi
}

# kube_spawn PROCESS COMMAND…: as lab_spawn. No proxy of the caller's stands between the two.
kube_spawn() {
    local process=$1 enter=()
    shift
    [[ -z $KUBE_NETNS ]] || enter=(nsenter "--net=/run/netns/$KUBE_NETNS" --)
    setsid "${enter[@]}" env -i PATH="$PATH" HOME="$KUBE_DIR" "$@" \
        </dev/null >>"$KUBE_DIR/logs/$process.log" 2>&1 &
    local pid=$!
    printf '%s %s\n' "$pid" "$(process_start "$pid")" >"$KUBE_DIR/pids/$process"
    disown "$pid"
}

kube_certificates() {
    local pki=$KUBE_DIR/pki
    mkdir -m 0700 "$pki"
    cat >"$pki/openssl.cnf" <<CNF
[req]
distinguished_name = subject
[subject]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:false
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, IP:$KUBE_ADDRESS, IP:$(kube_service_address), DNS:localhost, DNS:kubernetes.default.svc
[client]
basicConstraints = critical, CA:false
extendedKeyUsage = clientAuth
CNF
    kube_certificate ca ca /CN=vswitch-test-ca
    kube_certificate server server /CN=kube-apiserver
    kube_certificate client admin /O=system:masters/CN=admin
    # Not a certificate's: it signs the tokens of service accounts.
    kube_key "$pki/tokens.key"
    openssl pkey -in "$pki/tokens.key" -pubout -out "$pki/tokens.pub"
}

kube_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>>"$KUBE_DIR/logs/openssl.log"
}

# kube_certificate KIND NAME SUBJECT: pki/NAME.key and pki/NAME.crt, signed by the CA or by itself.
kube_certificate() {
    local kind=$1 file=$KUBE_DIR/pki/$2 issuer=()
    [[ $kind == ca ]] || issuer=(-CA "$KUBE_DIR/pki/ca.crt" -CAkey "$KUBE_DIR/pki/ca.key")
    kube_key "$file.key"
    openssl req -x509 -config "$KUBE_DIR/pki/openssl.cnf" -extensions "$kind" "${issuer[@]}" \
        -key "$file.key" -subj "$3" -days 2 -out "$file.crt" >>"$KUBE_DIR/logs/openssl.log" 2>&1 ||
        die "openssl cannot make a certificate for $2: $(tail -n 2 "$KUBE_DIR/logs/openssl.log")"
}

# shellcheck shell=bash
# What is asked of a Kubernetes API server, without kubectl: requests, manifests, who may log in,
# and nodes. All by curl, as the administrator. Sourced after kubernetes_server.sh; needs KUBE_DIR.

kube_url() {
    if [[ $KUBE_ADDRESS == *:* ]]; then
        printf 'https://[%s]:%s' "$KUBE_ADDRESS" "$KUBE_PORT"
    else
        printf 'https://%s:%s' "$KUBE_ADDRESS" "$KUBE_PORT"
    fi
}

# What every request has in common, as curl reads it from a file.
kube_curl_options() {
    cat <<CURL
silent
show-error
fail-with-body
noproxy = "*"
connect-timeout = 5
cacert = "$KUBE_DIR/pki/ca.crt"
cert = "$KUBE_DIR/pki/admin.crt"
key = "$KUBE_DIR/pki/admin.key"
CURL
}

# kube_curl ARGUMENTS…: as the administrator.
kube_curl() { kube_in curl --config "$KUBE_DIR/curl.conf" --max-time "${KUBE_SECONDS:-30}" "$@"; }

# kube_api METHOD PATH [FILE|-]: prints the answer; fails if it is an error. What is sent is JSON, or
# YAML in a file that is called so; a PATCH is a merge patch.
kube_api() {
    local method=$1 path=$2 file=${3:-} type=application/json
    [[ $method != PATCH ]] || type=application/merge-patch+json
    [[ $file != *.y*ml ]] || type=application/yaml
    kube_curl --request "$method" ${file:+--header "Content-Type: $type" --data-binary "@$file"} \
        "$(kube_url)$path"
}

# kube_watch RESOURCE VERSION: prints the events of a core resource since that version, a line each,
# until the server ends it.
kube_watch() {
    KUBE_SECONDS=600 kube_curl --no-buffer "$(kube_url)/api/v1/$1?watch=1&resourceVersion=$2"
}

# kube_apply FILE: makes everything in a manifest, or changes it to that.
kube_apply() {
    local parts part version kind name namespace resource path
    parts=$(mktemp -d "$KUBE_DIR/apply.XXXXXX")
    awk -v parts="$parts" '/^---/ { n++; next } { print >(parts "/" 1000 + n ".yaml") }' "$1"
    for part in "$parts"/*; do
        kind=$(sed -n 's/^kind: *//p' "$part")
        # Only comments.
        [[ -n $kind ]] || continue
        version=$(sed -n 's/^apiVersion: *//p' "$part")
        name=$(kube_metadata "$part" name)
        namespace=$(kube_metadata "$part" namespace)
        path=/apis/$version
        [[ $version == */* ]] || path=/api/$version
        resource=$(kube_api GET "$path" | jq -er --arg kind "$kind" \
            'first(.resources[] | select(.kind == $kind and (.name | contains("/") | not)))
            | "\(.namespaced) \(.name)"') || die "The API server knows no $kind of $version"
        [[ $resource != true* ]] || path+=/namespaces/${namespace:-default}
        kube_curl --request PATCH --header 'Content-Type: application/apply-patch+yaml' \
            --data-binary "@$part" --output /dev/null \
            "$(kube_url)$path/${resource#* }/$name?fieldManager=vswitch-test&force=true"
    done
    rm -r "$parts"
}

# kube_metadata FILE KEY: name or namespace, as manifests are indented.
kube_metadata() {
    sed -n '/^metadata:/,/^[a-z]/s/^  '"$2"': *//p' "$1" | head -n 1 | tr -d "\"'"
}

# kube_service_account NAMESPACE NAME: prints a kubeconfig for it, with a token of one hour; makes
# both if they are missing. It may do what RBAC grants it, at first nothing.
kube_service_account() {
    local token
    kube_apply <(printf 'apiVersion: v1\nkind: %s\nmetadata:\n  name: %s\n  namespace: %s\n---\n' \
        Namespace "$1" '' ServiceAccount "$2" "$1")
    token=$(kube_token "$1" "$2")
    kube_kubeconfig "$2" "token: $token"
}

# kube_token NAMESPACE NAME: prints a token for a service account that is there.
kube_token() {
    kube_api POST "/api/v1/namespaces/$1/serviceaccounts/$2/token" - \
        <<<'{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}' |
        jq -er .status.token
}

# kube_user NAME [GROUP]: prints a kubeconfig for a user with a client certificate.
kube_user() {
    kube_certificate client "user-$1" "${2:+/O=$2}/CN=$1"
    kube_kubeconfig_of "$KUBE_DIR/pki/user-$1"
}

# kube_kubeconfig_of FILE: for whom FILE.crt is.
kube_kubeconfig_of() {
    kube_kubeconfig "$(basename "$1")" "client-certificate-data: $(base64 -w 0 "$1.crt")
    client-key-data: $(base64 -w 0 "$1.key")"
}

# kube_kubeconfig NAME CREDENTIALS
kube_kubeconfig() {
    cat <<YAML
apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: $(kube_url)
    certificate-authority-data: $(base64 -w 0 "$KUBE_DIR/pki/ca.crt")
users:
- name: $1
  user:
    $2
contexts:
- name: test
  context:
    cluster: test
    user: $1
current-context: test
YAML
}

# The most nodes that nodes_create_many makes: so many /26 are in a /17.
readonly KUBE_MANY=512
readonly KUBE_MANY_LABEL=vswitch.test/many

# node_create NAME PODCIDR INTERNAL_IP: both may be several, with commas between, or ''. A podCIDR
# that is given stays for the node's life: Kubernetes refuses to change it.
node_create() {
    jq -n --arg name "$1" --arg prefixes "$2" --arg addresses "$3" \
        "$KUBE_NODE"'node($name; $prefixes | split(","); $addresses | split(",")) ' |
        kube_api POST /api/v1/nodes - >/dev/null
}

# node_patch NAME JSON [status]: a merge patch; of the status it has to be said, as annotations and
# spec are changed apart from it.
node_patch() { kube_api PATCH "/api/v1/nodes/$1${3:+/$3}" - <<<"$2" >/dev/null; }

# node_readdress NAME INTERNAL_IP
node_readdress() {
    node_patch "$1" "$(jq -n --arg name "$1" --arg addresses "$2" \
        "$KUBE_NODE"'{status: {addresses: addresses($name; $addresses | split(","))}}')" status
}

# node_delete NAME
node_delete() { kube_api DELETE "/api/v1/nodes/$1" >/dev/null; }

# nodes_count
nodes_count() { kube_api GET /api/v1/nodes | jq '.items | length'; }

# nodes_create_many N: many-1 to many-N over one connection, each with a /26 of 198.18.128.0/17 and
# an address in 198.19.0.0/17, which no lab has as a subnet or for pods.
nodes_create_many() {
    (($1 <= KUBE_MANY)) || die "nodes_create_many makes at most $KUBE_MANY nodes"
    jq -nr --argjson count "$1" --arg url "$(kube_url)/api/v1/nodes" --arg mark "$KUBE_MANY_LABEL" \
        --rawfile options "$KUBE_DIR/curl.conf" "$KUBE_NODE"'
        range($count)
        | (. / 4 | floor) as $third
        | node("many-\(. + 1)"; ["198.18.\(128 + $third).\(. % 4 * 64)/26"];
            ["198.19.\($third).\(. % 4 + 1)"]) as $node
        | ($node | .metadata.labels[$mark] = "yes" | tojson) as $body
        # curl reads a string as JSON writes it.
        | "\(if . > 0 then "next\n" else "" end)url = \($url | tojson)\n\($options)" +
            "header = \"Content-Type: application/json\"\ndata = \($body | tojson)\noutput = /dev/null"
    ' | kube_in curl --fail-early --config -
}

# nodes_delete_many: all that nodes_create_many made, in one request, which takes the longer the more else the
# machine does.
nodes_delete_many() { KUBE_SECONDS=${KUBE_SECONDS:-120} kube_api DELETE "/api/v1/nodes?labelSelector=$KUBE_MANY_LABEL" >/dev/null; }

# A node as its kubelet and the controllers leave it, in jq.
# shellcheck disable=SC2016
readonly KUBE_NODE='
    def addresses($name; $internal):
        [$internal[] | {type: "InternalIP", address: .}] + [{type: "Hostname", address: $name}];
    def node($name; $prefixes; $internal): {
        apiVersion: "v1", kind: "Node",
        metadata: {name: $name, labels: {"kubernetes.io/hostname": $name}},
        spec: (if $prefixes == [] then {} else {podCIDR: $prefixes[0], podCIDRs: $prefixes} end),
        status: {
            addresses: addresses($name; $internal),
            conditions: [{type: "Ready", status: "True", reason: "KubeletReady"}]
        }
    };'

# shellcheck shell=bash
# A cluster with all that a cluster has: controllers and a scheduler beside the API server, and two nodes that are
# machines of runtime_node.sh with containerd, a kubelet and kube-proxy. Nothing of the vSwitch is on them but
# the image of its DaemonSet. Sourced after all_kubernetes.sh and runtime_node.sh.

# Archives in LAB_DIR that its nodes import.
cluster_images=(pause vswitch)

# cluster_up: without anything that networks pods.
cluster_up() {
    local node
    underlay_up
    kube_up_in_lab outside --address "${HOST_ADDRESS[outside]}"
    step "Starting controllers, a scheduler, and two nodes with containerd, kubelet and kube-proxy"
    controllers_up
    runtime_image pause sleep 1000000 >/dev/null
    vswitch_image
    for node in node-a node-b; do
        underlay_attach_node "$node"
        cluster_node_up "$node"
    done
}

# cluster_installs_vswitch: as an operator does.
cluster_installs_vswitch() {
    step "Installing vSwitch by kubectl"
    check "before, no node is ready" test -z "$(ready_nodes)"
    # The shipped manifests, for this cluster's prefixes.
    "$(kube_program kubectl)" kustomize "$root/config/kubernetes/base" |
        sed "s|cluster_prefixes = .*|cluster_prefixes = [\"$CLUSTER4\", \"$CLUSTER6\"]|" >"$LAB_DIR/manifests.yaml"
    check "kubectl apply" kubectl_ apply -f "$LAB_DIR/manifests.yaml"
    check "kubectl rollout status" kubectl_ -n vswitch-system rollout status --timeout 120s daemonset/vswitch
    check "both nodes are ready" wait_until 60 both_ready
}

both_ready() { [[ $(ready_nodes) == "node-a node-b" ]]; }

# kubectl_ ARGUMENTS…: as the administrator, from the host on which the API server runs.
kubectl_() {
    in_ns outside env -i PATH="$PATH" HOME="$KUBE_DIR" \
        "$(kube_program kubectl)" --kubeconfig "$KUBE_DIR/admin.kubeconfig" "$@"
}

# controllers_up: those of Kubernetes, and its scheduler. Nodes get podCIDRs of the lab's prefixes.
controllers_up() {
    local pki=$KUBE_DIR/pki name
    for name in kube-controller-manager kube-scheduler; do
        (umask 077 && kube_user "system:$name" >"$KUBE_DIR/$name.kubeconfig")
    done
    # What the API server would say of itself, if it were one of several.
    kube_apply <(api_server_endpoints)
    kube_spawn kube-controller-manager "$(kube_program kube-controller-manager)" \
        --kubeconfig "$KUBE_DIR/kube-controller-manager.kubeconfig" \
        --leader-elect=false --bind-address 127.0.0.1 --port 0 --secure-port 10257 \
        --cert-dir "$KUBE_DIR/kube-controller-manager" \
        --service-account-private-key-file "$pki/tokens.key" --root-ca-file "$pki/ca.crt" \
        --use-service-account-credentials --feature-gates IPv6DualStack=true --allocate-node-cidrs --cluster-cidr "$CLUSTER4,$CLUSTER6" \
        --service-cluster-ip-range "$KUBE_SERVICE_PREFIX" \
        --node-cidr-mask-size-ipv4 24 --node-cidr-mask-size-ipv6 48
    kube_spawn kube-scheduler "$(kube_program kube-scheduler)" \
        --kubeconfig "$KUBE_DIR/kube-scheduler.kubeconfig" --leader-elect=false \
        --bind-address 127.0.0.1 --port 0 --secure-port 10259 --cert-dir "$KUBE_DIR/kube-scheduler"
    wait_until 30 kube_api GET /api/v1/namespaces/default/serviceaccounts/default ||
        die "kube-controller-manager does not work; its log is kube-controller-manager.log"
}

api_server_endpoints() {
    cat <<YAML
apiVersion: v1
kind: Endpoints
metadata:
  name: kubernetes
  namespace: default
subsets:
- addresses:
  - ip: $KUBE_ADDRESS
  ports:
  - name: https
    port: $KUBE_PORT
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
metadata:
  name: kubernetes
  namespace: default
  labels:
    kubernetes.io/service-name: kubernetes
addressType: IPv4
ports:
- name: https
  port: $KUBE_PORT
  protocol: TCP
endpoints:
- addresses: [$KUBE_ADDRESS]
  conditions:
    ready: true
YAML
}

# cluster_node_up NODE: the machine with containerd, kubelet and kube-proxy. Its Node is not ready before something
# networks its pods.
cluster_node_up() {
    local node=$1 dir
    dir=$(node_dir "$node")
    mkdir -p "$dir"
    machine_up "$node"
    # Where a kubelet and what it starts have their files: none of the machine's under us.
    on_host "$node" sh -c 'mount -t tmpfs tmpfs /opt && mount -t tmpfs tmpfs /var/log &&
        mkdir -p /run/etc/upper /run/etc/work &&
        mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc &&
        rm -rf /etc/cni && mkdir -p /opt/cni/bin /etc/cni/net.d /run/netns /var/lib/kubelet && mount --make-rshared /'
    on_host "$node" ln -s /usr/lib/cni/loopback /usr/lib/cni/portmap /opt/cni/bin/
    cluster_containerd_up "$node"
    kubelet_up "$node"
    kube_proxy_up "$node"
    wait_until 30 kube_api GET "/api/v1/nodes/$node" || die "The kubelet of $node does not register it"
}

cluster_containerd_up() {
    local node=$1 dir image
    dir=$(node_dir "$node")
    containerd_config >"$dir/containerd.toml"
    machine_spawn "$node" containerd containerd --config "$dir/containerd.toml"
    wait_until 20 on_host "$node" ctr --namespace k8s.io version ||
        die "containerd of $node does not start; its log is containerd-$node.log"
    for image in "${cluster_images[@]}"; do
        on_host "$node" ctr --namespace k8s.io images import --snapshotter native "$LAB_DIR/$image.tar" >/dev/null
    done
}

# kubelet_up NODE
kubelet_up() {
    local node=$1 dir
    dir=$(node_dir "$node")
    (umask 077 && kube_user "system:node:$node" system:nodes >"$dir/kubelet.kubeconfig")
    # No cgroups for pods, as the machine's has no controllers; and a disk that is never full.
    cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: true}
  webhook: {enabled: false}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
evictionHard: {memory.available: 1Mi, nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
volumePluginDir: /var/lib/kubelet/plugins
featureGates: {IPv6DualStack: true}
YAML
    machine_spawn "$node" kubelet "$(kube_program kubelet)" --config "$dir/kubelet.yaml" \
        --kubeconfig "$dir/kubelet.kubeconfig" --hostname-override "$node" --node-ip "${HOST_ADDRESS[$node]}" \
        --root-dir /var/lib/kubelet --cert-dir /var/lib/kubelet/pki \
        --container-runtime remote --container-runtime-endpoint unix:///run/containerd/containerd.sock \
        --pod-infra-container-image localhost/pause:1
}

# kube_proxy_up NODE: it serves what is in the node's own network: the agent finds the API server by it.
kube_proxy_up() {
    local node=$1 dir
    dir=$(node_dir "$node")
    (umask 077 && kube_user system:kube-proxy >"$dir/kube-proxy.kubeconfig")
    cat >"$dir/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection: {kubeconfig: $dir/kube-proxy.kubeconfig}
clusterCIDR: $CLUSTER4
hostnameOverride: $node
mode: iptables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0s}
YAML
    machine_spawn "$node" kube-proxy "$(kube_program kube-proxy)" --config "$dir/kube-proxy.yaml"
}

# vswitch_image: writes vswitch.tar, with what config/kubernetes/Containerfile puts into it, of this machine's files.
vswitch_image() {
    local dir=$LAB_DIR/image-vswitch name
    mkdir -p "$dir/root"/{bin,usr/local/{sbin,bin,libexec},tmp,run,var/lib,dev,proc,sys,etc}
    # As in Debian's image: containerd says /var/run/netns for /run/netns.
    ln -s /run "$dir/root/var/run"
    image_add_programs vswitch /usr/sbin/nft "$bin"/vswitch{d,ctl,-cni,-agent}
    for name in sbin/vswitchd sbin/vswitchctl libexec/vswitch-cni bin/vswitch-agent; do
        strip -o "$dir/root/usr/local/$name" "$dir/root$bin/$(basename "$name")"
    done
    rm -r "$dir/root${bin:?}"
    cp /bin/busybox "$dir/root/bin/"
    ln -s busybox "$dir/root/bin/sh"
    ln -s busybox "$dir/root/bin/sed"
    image_archive vswitch docker.io/library/vswitch:0.1.0 /bin/sh >/dev/null
}

# cluster_daemon NODE: the pid of vswitchd on that machine; its supervisor is another process.
# shellcheck disable=SC2016  # The shell that is executed expands it.
cluster_daemon() { on_host "$1" sh -c 'pgrep -P "$(pgrep -f "^/usr/local/sbin/vswitchd supervise")"'; }

# cluster_accounts NODE: every packet that it received or made was sent or dropped.
cluster_accounts() { wait_until 3 cluster_accounted "$1"; }

cluster_accounted() {
    on_host "$1" "$bin/vswitchctl" show drops --json |
        jq -e '.received > 0 and .received + .made == .sent + .dropped'
}

# ready_nodes: their names.
ready_nodes() {
    kube_api GET /api/v1/nodes | jq -r '.items[] |
        select(.status.conditions | any(.type == "Ready" and .status == "True")).metadata.name' | sort | xargs
}

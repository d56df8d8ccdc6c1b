# shellcheck shell=bash
# all.sh, and what a Kubernetes API server takes.

# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/kubernetes_build.sh
. "$root/scripts/lib/kubernetes_build.sh"
# shellcheck source=scripts/lib/kubernetes_server.sh
. "$root/scripts/lib/kubernetes_server.sh"
# shellcheck source=scripts/lib/kubernetes.sh
. "$root/scripts/lib/kubernetes.sh"

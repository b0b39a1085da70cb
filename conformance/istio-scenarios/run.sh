#!/usr/bin/env bash
# The documents' sessions on the originals: conformance/istio-scenarios/run.sh SHARED [TEST|up|down]
# The end-to-end tests of the documents run on a real Kubernetes with a real Istio and Envoy sidecars, in the place of
# `lateen up`. Rows that do not hold there are in differences.txt. Needs root. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
shared=$(cd "${1:?the folder with the originals and the manifests of the scenarios}" && pwd)
only=${2:-}
cluster=${LATEEN_ORACLE_CLUSTER:-${TMPDIR:-/tmp}/lateen-istio-scenarios}
cache=${LATEEN_ORACLES:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen-oracles}
tools=${LATEEN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/tools}
gateway=192.168.77.9 # the load balancer's address; no one else has it
kube() { "$shared/oracles/kube.sh" "$@"; }
. "$here/../node/root.sh"

up() {
  "$shared/oracles/build.sh" fortio
  kube up "$cluster" --node > /dev/null
  "$shared/oracles/istio.sh" images "$cluster"
  root_folder "$cluster/workloads" "$here/../../target/debug/lateen" \
    bash curl dig getent grep env cat ls seq sleep true head tail sort date
  cp "$cache/bin/fortio" "$cluster/workloads/usr/bin/"
  ln -s ../../bin/fortio "$cluster/workloads/usr/local/bin/fortio"
  kube image "$cluster" oracle.local/workloads:1 "$cluster/workloads" /usr/local/bin/lateen
  # Stock Envoy has none of Istio's own filters. The profile is the one whose gateway has the port for TCP.
  "$shared/oracles/istio.sh" up "$cluster" --stock-envoy --set profile=demo
  kube run "$cluster" kubectl -n istio-system patch service istio-ingressgateway --subresource=status --type=merge \
    -p "{\"status\": {\"loadBalancer\": {\"ingress\": [{\"ip\": \"$gateway\"}]}}}" > /dev/null
  kube run "$cluster" kubectl -n istio-system wait --for=condition=Ready pod --all --timeout=90s > /dev/null
}

down() {
  "$shared/oracles/istio.sh" down "$cluster"
  kube down "$cluster"
}

session() { # TARGET TEST
  [ -z "$only" ] || [ "$only" = "$2" ] || return 0
  echo "-- $2"
  trap down EXIT
  up
  kube run "$cluster" env PATH="$cache/python/bin:$tools:$PATH" LATEEN_TEST_KUBECONFIG="$cluster/kubeconfig" \
    LATEEN_TEST_DIFFERENCES="$here/differences.txt" LATEEN_SEED_MANIFESTS="$shared/seed-manifests" \
    LATEEN_KUBECTL="$here/kubectl.py" LATEEN_NODE_KUBECTL="$cache/bin/kubectl" LATEEN_NODE_IMAGE=oracle.local/workloads:1 \
    LATEEN_NODE_CATALOGUE="$here/../../crates/lateen-node/data/images.yaml" \
    RUST_BACKTRACE=0 cargo test --offline --quiet --package lateen --features oracles --test "$1" -- --exact "$2" --nocapture || failed+=("$2")
  down
  trap - EXIT
}

failed=()
[ "$only" != up ] || { up; exit; }
[ "$only" != down ] || { down; exit; }
cargo test --quiet --package lateen --features oracles --no-run
session original_sticky_sessions the_original_manifests_work_for_root
session original_labs the_canary_works_on_its_original_manifests
session original_labs the_lab_works_on_its_original_manifests
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }

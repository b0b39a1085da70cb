#!/usr/bin/env bash
# Lateen in the place of Istio's proxy: conformance/istiod-proxy/run.sh SHARED [up|check|down]
# Without an action it does all three. Needs root: it starts a real Kubernetes with a node. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
shared=$(cd "${1:?the folder with the originals and the manifests of the scenarios}" && pwd)
action=${2:-all}
cluster=${LATEEN_ORACLE_CLUSTER:-${TMPDIR:-/tmp}/lateen-istiod-proxy}
kube() { "$shared/oracles/kube.sh" "$@"; }

. "$here/../node/root.sh"

up() {
  cargo build --quiet --package lateen
  kube up "$cluster" --node
  # The proxy under the name of Istio's agent, and what it runs: nft for the redirect rules.
  root_folder "$cluster/root" "$here/../../target/debug/lateen" nft bash curl
  mv "$cluster/root/usr/local/bin/lateen" "$cluster/root/usr/local/bin/pilot-agent"
  ln -s pilot-agent "$cluster/root/usr/local/bin/lateen"
  kube image "$cluster" oracle.local/proxyv2:1 "$cluster/root" /usr/local/bin/pilot-agent
  "$shared/oracles/istio.sh" up "$cluster"
}

check() { # with the Python that istio.sh made, which reads YAML
  local cache=${LATEEN_ORACLES:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen-oracles}
  kube run "$cluster" "$cache/python/bin/python" "$here/check.py" \
    "$shared/seed-manifests" "$here/../../crates/lateen-node/data/images.yaml"
}

down() {
  "$shared/oracles/istio.sh" down "$cluster"
  kube down "$cluster"
}

case "$action" in
  up | check | down) "$action" ;;
  all) trap down EXIT; up; check ;;
  *) sed -n 2,3p "$0"; exit 2 ;;
esac

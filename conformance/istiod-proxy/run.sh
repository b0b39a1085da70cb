#!/usr/bin/env bash
# Lateen in the place of Istio's proxy: conformance/istiod-proxy/run.sh SHARED [up|check|down]
# Without an action it does all three. Needs root: it starts a real Kubernetes with a node. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
shared=$(cd "${1:?the folder with the originals and the manifests of the scenarios}" && pwd)
action=${2:-all}
cluster=${LATEEN_ORACLE_CLUSTER:-${TMPDIR:-/tmp}/lateen-istiod-proxy}
kube() { "$shared/oracles/kube.sh" "$@"; }

# A root folder with the proxy under the name of Istio's agent, and what it runs: nft for the redirect rules.
image() {
  local root=$1 lateen=$2 lib program
  rm -rf "$root"
  mkdir -p "$root"/{bin,usr/local/bin,usr/sbin,etc/istio/proxy,etc/ssl/certs,var/run/secrets,tmp,proc,sys,dev,run}
  objcopy --strip-debug "$lateen" "$root/usr/local/bin/pilot-agent"
  ln -s pilot-agent "$root/usr/local/bin/lateen"
  cp "$(readlink -f "$(command -v nft)")" "$root/usr/sbin/nft"
  cp /bin/bash "$root/bin/"; cp /usr/bin/curl "$root/bin/"
  for program in "$root/usr/local/bin/pilot-agent" "$root/usr/sbin/nft" /bin/bash /usr/bin/curl; do
    ldd "$program" | grep -oE '/[^ ]+\.so[^ ]*' || true
  done | sort -u | while read -r lib; do mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; done
  printf 'root:x:0:0:root:/root:/bin/bash\nistio-proxy:x:1337:1337::/:/bin/bash\n' > "$root/etc/passwd"
  printf 'root:x:0:\nistio-proxy:x:1337:\n' > "$root/etc/group"
  chmod 1777 "$root/tmp"
}

up() {
  cargo build --quiet --package lateen
  kube up "$cluster" --node
  image "$cluster/root" "$here/../../target/debug/lateen"
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

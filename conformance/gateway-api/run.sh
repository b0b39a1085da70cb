#!/usr/bin/env bash
# The Gateway API's conformance suite against lateen up: conformance/gateway-api/run.sh SHARED
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
shared=$(cd "${1:?the folder with oracles}" && pwd)
lateen=$here/../../target/debug/lateen
cache=${LATEEN_ORACLES:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen-oracles}
images=$cache/gateway-api-images

command -v go >/dev/null || { echo "gateway-api: Go is missing: install it (https://go.dev/doc/install)" >&2; exit 3; }
bash "$shared/oracles/build.sh" gateway-api-conformance
work=$(mktemp -d)
state=$work/state
export XDG_DATA_HOME=$work/data
finish() {
  "$lateen" down --state "$state" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# The workloads: the suite's echo servers, and Istio's for the mesh. UDP is not served, so the suite's nameserver, which
# only has to be ready, is an echo server too.
image() { python3 "$shared/oracles/make_image.py" "registry.k8s.io/$1" "$work/root" "$images.new/${1//[\/:]/-}.tar" "$2"; }
if [ ! -d "$images" ]; then
  mkdir -p "$work/root" "$images.new"
  (cd "$shared/oracles/gateway-api" &&
    CGO_ENABLED=0 go build -ldflags '-s -w' -o "$work/root/echo" sigs.k8s.io/gateway-api/conformance/echo-basic)
  for version in v1.5.1 v1.6.0-dev.2 v1.6.0-dev.3; do image "gateway-api/echo-basic:$version" /echo; done
  image coredns/coredns:v1.12.2 /echo
  bash "$shared/oracles/istio_suite.sh" app "$work/app.tar"
  mkdir "$work/app"
  tar xf "$work/app.tar" -C "$work/app"
  sed -i 's#oracle.local/app:1#registry.k8s.io/gateway-api/echo-advanced:v1.5.1#' "$work/app/manifest.json"
  tar cf "$images.new/echo-advanced.tar" -C "$work/app" .
  mv "$images.new" "$images"
fi
for archive in "$images"/*.tar; do "$lateen" image load "$archive" >/dev/null; done

"$lateen" up --detach --state "$state"
features() { sed -n "s/^$1 //p" "$here/features.txt" | tr '\n ' ',,' | sed 's/,$//'; }
for profile in gateway mesh; do
  KUBECONFIG=$state/kubeconfig timeout 1500 "$cache/bin/gateway-api-conformance" -test.v -test.timeout 25m \
    -gateway-class istio -mesh-name istio -allow-crds-mismatch -namespace-labels istio-injection=enabled \
    -supported-features "$(features $profile)" >"$work/$profile.log" 2>&1 || true
done
python3 "$here/report.py" "$here/passed.txt" "$work/gateway.log" "$work/mesh.log"

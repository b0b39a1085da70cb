#!/usr/bin/env bash
# Istio's integration suite against lateen up: conformance/istio-suite/run.sh SHARED [PATTERN]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
shared=$(cd "${1:?the folder with oracles}" && pwd)
pattern=${2:-'TestTraffic/virtualservice$'}
lateen=$here/../../target/debug/lateen
cache=${LATEEN_ORACLES:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen-oracles}
suite=$shared/oracles/istio_suite.sh

command -v go >/dev/null || { echo "istio-suite: Go is missing: install it (https://go.dev/doc/install)" >&2; exit 3; }
mkdir -p "$cache"
app=$cache/istio-suite-app.tar
[ -s "$app" ] || { bash "$suite" app "$app.new" && mv "$app.new" "$app"; }

work=$(mktemp -d)
state=$work/state
export XDG_DATA_HOME=$work/data
finish() {
  "$lateen" down --state "$state" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
"$lateen" image load "$app" >/dev/null
"$lateen" up --detach --state "$state" --filename "$here/egress-gateway.yaml"
log=$work/log
code=0
timeout 1800 bash "$suite" run "$state/kubeconfig" "$pattern" -test.v --istio.test.skipVM \
  --istio.test.skipWorkloads=tproxy,proxyless --istio.test.kube.deployGatewayAPI=false >"$log" 2>&1 || code=$?
python3 "$here/report.py" "$log" "$here/passed.txt" "$pattern" || {
  [ "$code" -eq 0 ] || tail -n 20 "$log" | cut -c1-300
  exit 1
}

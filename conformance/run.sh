#!/usr/bin/env bash
# Judges the project by the originals: conformance/run.sh SHARED
# SHARED holds the recordings, the corpora and the scenarios' manifests; its layout is described in its own README files.
set -euo pipefail
cd "$(dirname "$0")/.."
shared=$(cd "${1:?the folder with recordings, corpora and manifests}" && pwd)
tools=${LATEEN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/tools}
step() { echo "-- $* ($(date +%T))"; }

step "building the API server and the control plane on their own"
cargo build --quiet --package lateen-control --package lateen-cluster --examples

step "kubectl sessions: our API server's answers beside those of kube-apiserver"
PATH=$tools:$PATH python3 conformance/kubectl/run.py check conformance/kubectl/cases.yaml conformance/kubectl/recordings
PATH=$tools:$PATH python3 conformance/kubectl/run.py check "$shared/oracles/kubectl-cases/basics.yaml" \
  "$shared/golden/kubectl-1.37-kubernetes-1.36"

step "autoscalers: our controller's decisions beside those of kube-controller-manager"
python3 conformance/autoscaler/run.py check

step "xDS: our control plane's resources beside istiod's"
cargo xtask golden "$shared"

step "Istio's own cases"
cargo xtask corpora "$shared/corpora"

step "a stock Envoy under our control plane"
PATH=$tools:$PATH python3 conformance/envoy-control/run.py

step "the proxy beside a real Envoy"
cargo build --quiet --package lateen
python3 conformance/envoy/run.py

step "the proxy beside a real Envoy, on what istiod sends"
python3 conformance/envoy/run.py --recordings "$shared/golden/istiod-1.31" --seconds 300

step "two minutes of changes under load"
LATEEN_SOAK_MINUTES=2 cargo test --quiet --package lateen-proxy --test soak

step "Istio's integration suite"
conformance/istio-suite/run.sh "$shared"

step "the Gateway API's conformance suite"
conformance/gateway-api/run.sh "$shared"

step "the first scenario on its original manifests"
LATEEN_SEED_MANIFESTS=$shared/seed-manifests LATEEN_KUBECTL=$tools/kubectl cargo test --quiet --package lateen --features oracles \
  --test original_sticky_sessions -- --nocapture --test-threads 1

step "the labs on their original manifests, with fortio"
PATH=$PATH:$tools LATEEN_SEED_MANIFESTS=$shared/seed-manifests LATEEN_KUBECTL=$tools/kubectl cargo test --quiet --package lateen --features oracles \
  --test original_labs

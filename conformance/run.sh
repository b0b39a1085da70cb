#!/usr/bin/env bash
# Judges the project by the originals: conformance/run.sh SHARED
# SHARED holds the recordings, the corpora and the scenarios' manifests; its layout is described in its own README files.
set -euo pipefail
cd "$(dirname "$0")/.."
shared=$(cd "${1:?the folder with recordings, corpora and manifests}" && pwd)
tools=${LATEEN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/tools}
step() { echo "-- $* ($(date +%T))"; }

step "kubectl sessions: our API server's answers beside the recorded ones of kube-apiserver"
python3 conformance/kubectl/compare.py "$shared" "$tools/kubectl"

step "xDS: our control plane's resources beside istiod's"
cargo xtask golden "$shared"

step "Istio's own cases"
cargo xtask corpora "$shared/corpora"

step "the first scenario on its original manifests"
LATEEN_SEED_MANIFESTS=$shared/seed-manifests cargo test --quiet --package lateen --features oracles \
  --test original_sticky_sessions -- --nocapture --test-threads 1

#!/usr/bin/env bash
# Installs what a task needs and this machine lacks: setup.sh build|run|test|oracles|bench
# Whatever cannot be installed here is named in one line, with what to do, and the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."
task=${1:?build, run, test, oracles or bench}
tools=${LATEEN_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/tools}

fail() {
  echo "setup: $*" >&2
  exit 3
}

# debian PROGRAM PACKAGE: a program that Debian packages.
missing=()
debian() {
  command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2")
}

install_missing() {
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" -eq 0 ] && run=() || run=(sudo -n)
  command -v apt-get >/dev/null || fail "install these packages with your system's package manager: ${missing[*]}"
  echo "setup: installing ${missing[*]}" >&2
  "${run[@]}" true 2>/dev/null || fail "run this as root, then again: apt-get install --yes ${missing[*]}"
  local log
  log=$(mktemp)
  { "${run[@]}" apt-get update && DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; fail "apt-get could not install: ${missing[*]}"; }
  rm -f "$log"
}

# The newest kubectl, built from its Go module: kept beside other tools, used where PATH has none and by the oracles.
build_kubectl() {
  [ -x "$tools/kubectl" ] && return
  command -v go >/dev/null || fail "kubectl is missing and so is Go to build it: install kubectl 1.29 or later (https://kubernetes.io/docs/tasks/tools)"
  echo "setup: building kubectl from its Go module (about a minute)" >&2
  mkdir -p "$tools"
  (cd conformance/kubectl/client && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37" -o "$tools/kubectl.new" .) ||
    fail "kubectl could not be built from its Go module: see the lines above"
  mv "$tools/kubectl.new" "$tools/kubectl"
}

# The load generator of the original labs, built from its Go module.
build_fortio() {
  [ -x "$tools/fortio" ] && return
  command -v go >/dev/null || fail "fortio is missing and so is Go to build it: install Go (https://go.dev/doc/install)"
  echo "setup: building fortio from its Go module (about a minute)" >&2
  mkdir -p "$tools"
  GOBIN=$tools go install -ldflags '-s -w' fortio.org/fortio@v1.63.0 || fail "fortio could not be built from its Go module: see the lines above"
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
command -v cc >/dev/null || debian cc gcc

case "$task" in
build) ;;
run) debian nft nftables ;;
test | oracles)
  debian nft nftables
  debian ip iproute2
  debian curl curl
  debian hey hey
  debian dig dnsutils
  debian jq jq
  debian busybox busybox
  debian redis-server redis-server
  debian docker-registry docker-registry
  debian python3 python3
  debian newuidmap uidmap
  ;;
bench)
  debian h2load nghttp2-client
  debian haproxy haproxy
  debian nginx nginx-light
  debian openssl openssl
  debian python3 python3
  ;;
*) fail "unknown task $task: build, run, test, oracles or bench" ;;
esac
install_missing

case "$task" in
test) command -v kubectl >/dev/null || build_kubectl ;;
oracles)
  build_kubectl
  build_fortio
  python3 -c 'import yaml' 2>/dev/null || python3 -m pip install --quiet pyyaml 2>/dev/null || fail "Python's yaml module is missing: pip install pyyaml"
  ;;
esac

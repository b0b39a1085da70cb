# The two commands of the README are `make demo` and `make test`.
# Everything is built with one profile, so the first of them compiles the dependencies for both.

SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help demo build test lint format oracles oracle-istiod oracle-scenarios fuzz bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## Build Lateen, show the sticky-sessions scenario, and leave the mesh running
	@scripts/setup.sh run
	@$(CARGO) build --package lateen
	@target/debug/lateen demo sticky-sessions

build: ## Build the binary
	@scripts/setup.sh build
	@$(CARGO) build --package lateen

test: ## Run every test of the project; needs nothing outside the clone
	@scripts/setup.sh test
	@$(CARGO) test --workspace --quiet
	@$(CARGO) xtask check

lint: ## Formatting, clippy, licences of dependencies
	@$(CARGO) fmt --all -- --check
	@$(CARGO) clippy --workspace --all-targets --quiet -- --deny warnings

oracles: ## Judge the project by the originals and by ../shared
	@scripts/setup.sh oracles
	@conformance/run.sh ../shared

oracle-istiod: ## Lateen as the proxy of a real istiod on a real Kubernetes; as root, by hand
	@conformance/istiod-proxy/run.sh ../shared

oracle-scenarios: ## The documents' sessions on a real Istio on a real Kubernetes; as root, by hand
	@conformance/istio-scenarios/run.sh ../shared

fuzz: ## Look for inputs that break a parser, a minute for each (with libFuzzer; builds the tests once more)
	@scripts/fuzz.py run

bench: ## Measure the proxy beside Envoy, HAProxy and nginx (about ten minutes, and a release build before)
	@scripts/setup.sh bench
	@$(CARGO) build --release --package lateen --package lateen-proxy --bins --examples
	@python3 bench/measure.py

format: ## Format all Rust code
	@$(CARGO) fmt --all

clean: ## Remove what was built
	@$(CARGO) clean

# `make help` lists the targets. A gate is one target here; CI runs the same ones as a person does.

# Extra arguments for the server: make run-process ARGS='--workers 4'
ARGS   ?=
LISTEN ?= 127.0.0.1:9501
# How long each fuzz target may run.
FUZZ_SECONDS ?= 60

CARGO  ?= cargo
CC     ?= cc
CFLAGS ?= -O2
# Flags that are no matter of taste.
C_STRICT := -std=c11 -Wall -Wextra -Wpedantic -Werror
# A build with other compiler flags has a folder of its own, so that it never throws away the everyday one.
TARGET := $(or $(CARGO_TARGET_DIR),target)
HOST    = $(shell rustc -vV | sed -n 's/^host: //p')

C_PROGRAMS := $(patsubst c-examples/%.c,$(TARGET)/c-examples/%,$(wildcard c-examples/*.c))

# $(call with_nightly,COMMAND): run it on the nightly toolchain, or say that it was skipped.
with_nightly = @if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then set -ex; $(1); \
	else echo '$@: SKIPPED, it needs: rustup toolchain install nightly'; fi

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build run-process run-base lab test lint check stress gaps loom asan miri fuzz c-examples clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program and the library, optimised
	$(CARGO) build --release

run-process: ## an echo server in process mode on LISTEN (127.0.0.1:9501), with ARGS
	$(CARGO) run --release --bin tine -- serve --mode process --listen $(LISTEN) $(ARGS)

run-base: ## an echo server in base mode on LISTEN (127.0.0.1:9501), with ARGS
	$(CARGO) run --release --bin tine -- serve --mode base --listen $(LISTEN) $(ARGS)

lab: ## show how TCP connections go wrong; all of it in target/lab/index.html
	@mkdir -p $(TARGET)/lab
	$(CARGO) run --release --bin tine -- lab all --html $(TARGET)/lab/index.html
	@echo 'It is all in $(TARGET)/lab/index.html'

test: ## build and run every test
	$(CARGO) test --all-features

lint: ## formatting, clippy and docs, warnings denied
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	@# It is no part of all targets, because cargo test does not run it.
	$(CARGO) clippy --test stress --all-features -- -D warnings
	@# Each part by itself.
	$(CARGO) clippy --lib --no-default-features -- -D warnings
	for part in status cli lab doctor; do \
		$(CARGO) clippy --lib --no-default-features --features $$part -- -D warnings || exit 1; done
	$(CARGO) clippy --no-default-features --features cli -- -D warnings
	$(CARGO) clippy --no-default-features --features doctor -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --all-features

check: lint c-examples loom asan test ## what CI runs

stress: ## do everything to the workers that can be done to them, under load; STRESS=full for five times as long
	$(CARGO) test --release --all-features --test stress

gaps: ## measure what clients feel of a death, and of a worker that is stuck
	$(CARGO) bench --bench gaps

loom: ## check the ring's protocol under every interleaving
	RUSTFLAGS='--cfg loom' $(CARGO) test --release --manifest-path tests/loom/Cargo.toml --target-dir $(TARGET)/loom models

asan: ## the ring's code under AddressSanitizer (nightly)
	$(call with_nightly,RUSTFLAGS=-Zsanitizer=address \
		$(CARGO) +nightly test --lib --target $(HOST) --target-dir $(TARGET)/asan ipc)

miri: ## the ring's code under miri (nightly with the component)
	@if rustup component list --toolchain nightly --installed 2>/dev/null | grep -q '^miri'; then set -ex; \
		$(CARGO) +nightly miri test --lib --target-dir $(TARGET)/miri ipc; \
	else echo '$@: SKIPPED, it needs: rustup component add --toolchain nightly miri'; fi

fuzz: ## fuzz the frame decoder and the protocols (nightly), FUZZ_SECONDS (60) each
	$(call with_nightly,$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked; \
		for target in frame split; do \
			$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(FUZZ_SECONDS); \
		done)

c-examples: $(C_PROGRAMS) ## build the C programs into target/c-examples

$(TARGET)/c-examples/%: c-examples/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(C_STRICT) -o $@ $<

clean: ## remove what was built
	$(CARGO) clean
	rm -rf tests/fuzz/target

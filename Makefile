# `make help` lists the targets. A gate is one target here; CI runs the same ones as a person does.

# Extra arguments for the server: make run-process ARGS='--workers 4'
ARGS   ?=
LISTEN ?= 127.0.0.1:9501
# What bench measures, and bench-parts, by a part of its name; all, if empty.
ROWS ?=
# How long each fuzz target may run.
FUZZ_SECONDS ?= 60

CARGO  ?= cargo
CC     ?= cc
CFLAGS ?= -O2
# Flags that are no matter of taste.
C_STRICT := -std=c11 -Wall -Wextra -Wpedantic -Werror
# A build with other compiler flags has a folder of its own, so that it never throws away the everyday one.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# How build builds: release, or dev, which is quicker to build and slower to run.
PROFILE ?= release
BUILT   := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
HOST    = $(shell rustc -vV | sed -n 's/^host: //p')

# Where install puts what. DESTDIR comes before each of them, and nothing that is installed knows it.
DESTDIR    ?=
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
INSTALL    ?= install
STRIP      ?= strip
LDCONFIG   ?= ldconfig

VERSION := $(shell sed -n '/^version = /{s/.*"\(.*\)".*/\1/p;q;}' Cargo.toml)
# Programs run with any library of the same number. Before 1.0 each minor version may break them.
SOVERSION := $(shell echo $(VERSION) | sed 's/^\(0\.[0-9]*\).*/\1/; s/^\([1-9][0-9]*\).*/\1/')

# All that install writes: the program with its pages, and what install-lib writes.
PROGRAM := $(BINDIR)/tine
SHARED  := $(LIBDIR)/libtine.so.$(VERSION)
LINKS   := $(LIBDIR)/libtine.so.$(SOVERSION) $(LIBDIR)/libtine.so
STATIC  := $(LIBDIR)/libtine.a
HEADER  := $(INCLUDEDIR)/tine.h
PC_FILE := $(LIBDIR)/pkgconfig/tine.pc
PAGES   := $(addprefix $(MANDIR)/man1/,tine.1 tine-serve.1 tine-doctor.1 tine-lab.1 tine-load.1 tine-post.1)
FOR_PROGRAM := $(PROGRAM) $(PAGES)
FOR_LIBRARY := $(SHARED) $(LINKS) $(STATIC) $(HEADER) $(PC_FILE)

# $(call at_destination,FILES): where they are written.
at_destination = $(foreach file,$(1),"$(DESTDIR)$(file)")

# $(call make_folders,FILES): where they will be.
make_folders = $(INSTALL) -d $(call at_destination,$(sort $(dir $(1))))

# Root often has no cargo, and installs what was built before. $(call built,TARGET,FILES): makes the target where there
# is cargo, and sees to it that these files are there.
built = if $(CARGO) --version >/dev/null 2>&1; then $(MAKE) --no-print-directory $(1) || exit 1; fi; \
	for file in $(2); do \
		if [ ! -e $(BUILT)/$$file ]; then \
			echo "make: there is no $(BUILT)/$$file, and no cargo to build it: 'make $(1)' as one who has cargo" >&2; \
			exit 1; \
		fi; done

# Line tables are most of a file. The symbols stay: they name the functions of workers that are stuck.
strip_lines = @if command -v $(STRIP) >/dev/null; then set -x; $(STRIP) --strip-debug $(call at_destination,$(1)); fi

# $(call check_folder,VARIABLE): pkg-config would split its path at spaces, and take a relative one
# to be relative to who compiles.
SPECIAL := " ' ` \ $$ % & | ; < > ( ) * ? \#
check_folder = $(if $(or $(filter-out 1,$(words $($(1)))),$(filter-out /%,$($(1))),$(strip \
	$(foreach letter,$(SPECIAL),$(findstring $(letter),$($(1)))))),$(error $(1) is '$($(1))': it must be an absolute \
	path, without spaces and special characters))
check_folders = $(foreach name,PREFIX BINDIR LIBDIR INCLUDEDIR MANDIR,$(call check_folder,$(name)))

# The loader finds libraries by a cache: it has to be told, if it looks into this folder at all.
tell_loader = @if [ -z "$(DESTDIR)" ] && $(LDCONFIG) -NXv 2>/dev/null | grep -q '^$(LIBDIR):'; then $(LDCONFIG); fi

C_PROGRAMS := $(patsubst c-examples/%.c,$(TARGET)/c-examples/%,$(wildcard c-examples/*.c))
# Those that do without the library.
C_ALONE := $(addprefix $(TARGET)/c-examples/,backlog client_close epoll_echo)
C_LIB   := $(BUILT)/libtine.a
# A program gets only the functions that it uses: all of a library that is not optimised are many megabytes.
C_LIBS  := -Wl,--gc-sections -lpthread -ldl -lm

# $(call with_nightly,COMMAND): run it on the nightly toolchain, or say that it was skipped.
with_nightly = @if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then set -ex; $(1); \
	else echo '$@: SKIPPED, it needs: rustup toolchain install nightly'; fi

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build c-libraries install install-lib uninstall packages run-process run-base lab test header lint check stress bench bench-parts gaps loom asan miri fuzz c-examples clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: c-libraries ## build the program and the libraries for C, optimised
	$(CARGO) build --profile $(PROFILE) --workspace

# Cargo.toml has none of these crate types: whoever uses the crate from Rust would build them all,
# without LTO.
c-libraries: ## build the libraries for C, shared and static
	$(CARGO) rustc --profile $(PROFILE) -p tine --lib --features capi --crate-type staticlib,cdylib -- \
		-C link-arg=-Wl,-soname,libtine.so.$(SOVERSION)
	@# A program that is linked with it runs where it is, too.
	@ln -sf libtine.so $(BUILT)/libtine.so.$(SOVERSION)

install: ## install program, libraries and man pages into PREFIX (/usr/local), with DESTDIR before it
	$(check_folders)
	@$(call built,build,tine libtine.so libtine.a)
	$(copy_library)
	$(call make_folders,$(FOR_PROGRAM))
	$(INSTALL) -m 755 $(BUILT)/tine $(call at_destination,$(PROGRAM))
	$(call strip_lines,$(PROGRAM))
	umask 022 && $(BUILT)/tine man "$(DESTDIR)$(MANDIR)/man1"
	$(tell_loader)

install-lib: ## install the libraries for C and their header alone: no program is built
	$(check_folders)
	@$(call built,c-libraries,libtine.so libtine.a)
	$(copy_library)
	$(tell_loader)

define copy_library
	$(call make_folders,$(FOR_LIBRARY))
	$(INSTALL) -m 755 $(BUILT)/libtine.so $(call at_destination,$(SHARED))
	$(INSTALL) -m 644 $(BUILT)/libtine.a $(call at_destination,$(STATIC))
	$(call strip_lines,$(SHARED) $(STATIC))
	for link in $(call at_destination,$(LINKS)); do ln -sf $(notdir $(SHARED)) "$$link"; done
	$(INSTALL) -m 644 src/ffi/tine.h $(call at_destination,$(HEADER))
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)|' \
		src/ffi/tine.pc.in | $(INSTALL) -m 644 /dev/stdin $(call at_destination,$(PC_FILE))
endef

uninstall: ## remove what install and install-lib have written, given the same PREFIX and DESTDIR
	$(check_folders)
	rm -f $(call at_destination,$(FOR_PROGRAM) $(FOR_LIBRARY))
	$(tell_loader)

run-process: ## an echo server in process mode on LISTEN (127.0.0.1:9501), with ARGS
	$(CARGO) run --release -p tine-tools --bin tine -- serve --mode process --listen $(LISTEN) $(ARGS)

run-base: ## an echo server in base mode on LISTEN (127.0.0.1:9501), with ARGS
	$(CARGO) run --release -p tine-tools --bin tine -- serve --mode base --listen $(LISTEN) $(ARGS)

lab: ## show how TCP connections go wrong; all of it in target/lab/index.html
	@mkdir -p $(TARGET)/lab
	$(CARGO) run --release -p tine-tools --bin tine -- lab all --html $(TARGET)/lab/index.html
	@echo 'It is all in $(TARGET)/lab/index.html'

# Most of their time tests wait for servers that they have started: three at a time for each core.
RUST_TEST_THREADS ?= $(shell expr 3 \* $$(nproc))

test: ## build and run every test
	RUST_TEST_THREADS=$(RUST_TEST_THREADS) $(CARGO) test --workspace --all-features

header: ## make src/ffi/tine.h of the Rust beside it
	TINE_WRITE_HEADER=1 $(CARGO) test -p tine-tools --test it header::

lint: ## formatting, clippy, docs and C, warnings denied
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	@# It is no part of all targets, because cargo test does not run it.
	$(CARGO) clippy --workspace --all-features --test stress -- -D warnings
	@# The library as it is in the program, for C, and for Rust.
	$(CARGO) clippy --workspace --lib -- -D warnings
	$(CARGO) clippy -p tine --lib --features capi -- -D warnings
	$(CARGO) clippy -p tine --lib -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --all-features
	@# Also those that only make bench builds.
	$(CC) $(C_STRICT) -fsyntax-only -Isrc/ffi $(wildcard benches/peers/*.c c-examples/*.c tests/c/*.c)

# A table: who installs, and what the packages are called there.
packages: ## install what check needs from the system, unless it is there: a C and C++ compiler, pkg-config, SQLite, openssl
	@if command -v $(CC) >/dev/null && command -v $(CXX) >/dev/null && pkg-config --exists sqlite3 2>/dev/null \
		&& command -v openssl >/dev/null; then exit 0; fi; \
	as_root() { if [ "$$(id -u)" = 0 ]; then set -x; "$$@"; else set -x; sudo "$$@"; fi; }; \
	has() { command -v "$$1" >/dev/null; }; \
	if   has apt-get; then as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
	                       apt-get install -qy g++ libc6-dev pkg-config libsqlite3-dev openssl; \
	elif has dnf;     then as_root dnf install -qy gcc-c++ libasan libubsan glibc-static pkgconf-pkg-config sqlite-devel openssl; \
	elif has apk;     then as_root apk add -q g++ musl-dev pkgconf sqlite-dev openssl; \
	elif has pacman;  then as_root pacman -S --needed --noconfirm gcc pkgconf sqlite openssl; \
	elif has zypper;  then as_root zypper -qn install gcc-c++ glibc-devel-static pkg-config sqlite3-devel openssl; \
	else echo 'make: install a C and C++ compiler, pkg-config, openssl, and SQLite with its header: none of apt-get, dnf, apk, pacman' \
		'and zypper is here' >&2; exit 1; fi

check: packages lint ## what CI runs
	@# With the library that the tests need: the optimised one would be a build of its own.
	$(MAKE) c-examples PROFILE=dev
	$(MAKE) loom asan test

stress: ## do everything to the workers that can be done to them, under load; STRESS=full for five times as long
	$(CARGO) test --release -p tine-tools --test stress

# The program and the one that counts, without the features for tests: those do not belong into what is measured.
bench_programs = $(CARGO) build --release -p tine-tools --features tine/bench-hooks

bench: c-examples ## compare with a bare epoll loop and other echo servers, into target/bench; QUICK=1 for two minutes
	@mkdir -p $(TARGET)/bench
	$(CC) $(CFLAGS) $(C_STRICT) -Isrc/ffi -o $(TARGET)/bench/c-echo benches/peers/echo.c $(C_LIB) $(C_LIBS)
	$(bench_programs)
	$(CARGO) bench -p tine --features bench-hooks --bench compare -- '$(ROWS)'

bench-parts: ## time the ring, the frame codec and the table of connections, each by itself
	$(CARGO) bench -p tine --features bench-hooks --bench parts -- '$(ROWS)'

gaps: ## measure what clients feel of a death, and of a worker that is stuck
	$(bench_programs)
	$(CARGO) bench -p tine --features bench-hooks --bench gaps

loom: ## check the ring's protocol under every interleaving
	RUSTFLAGS='--cfg loom' $(CARGO) test --release --manifest-path tests/loom/Cargo.toml --target-dir $(TARGET)/loom models

asan: ## the ring's code under AddressSanitizer (nightly)
	$(call with_nightly,RUSTFLAGS=-Zsanitizer=address \
		$(CARGO) +nightly test -p tine --lib --target $(HOST) --target-dir $(TARGET)/asan ipc)

miri: ## the ring's code under miri (nightly with the component)
	@if rustup component list --toolchain nightly --installed 2>/dev/null | grep -q '^miri'; then set -ex; \
		$(CARGO) +nightly miri test -p tine --lib --target-dir $(TARGET)/miri ipc; \
	else echo '$@: SKIPPED, it needs: rustup component add --toolchain nightly miri'; fi

fuzz: ## fuzz the frame decoder, the PROXY protocol and the protocols (nightly), FUZZ_SECONDS (60) each
	$(call with_nightly,$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked; \
		for target in frame proxy split; do \
			$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(FUZZ_SECONDS); \
		done)

c-examples: $(C_PROGRAMS) ## build the C programs into target/c-examples

$(C_LIB): c-libraries ;

$(filter-out $(C_ALONE),$(C_PROGRAMS)): src/ffi/tine.h $(C_LIB)

$(addprefix $(TARGET)/c-examples/,blocking_sqlite job_queue resp): C_LIBS += -lsqlite3

$(TARGET)/c-examples/%: c-examples/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(C_STRICT) -Isrc/ffi -o $@ $< $(if $(filter %.a,$^),$(C_LIB) $(C_LIBS))

clean: ## remove what was built
	$(CARGO) clean
	rm -rf tests/fuzz/target

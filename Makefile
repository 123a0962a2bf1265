# Thin on purpose: what is done stands in the packages.
.PHONY: demo test sim versions trials lives power delta bench-node bench-fleet bench-planner build lint deny generate fmt fuzz host-packages

# Operator and agent run in containers that hold nothing else. The demo builds with the same words (e2e/src/binaries.rs),
# so that nothing is compiled twice.
TARGET = x86_64-unknown-linux-gnu
STATIC = RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET) \
	-p evenkeel-operator -p evenkeel-node-agent -p evenkeel-e2e
E2E = $${CARGO_TARGET_DIR:-target}/$(TARGET)/release/evenkeel-e2e

# Two machines in a cluster of their own: a good upgrade, a bad one, a report. KEEP=1 leaves it running; PANIC=1 adds a
# version whose kernel panics, RESET=1 a machine that begins anew.
demo: build
	$(E2E) demo $(if $(PANIC),--panic) $(if $(RESET),--reset)

# Everything that is checked, in the order in which it is cheap to fail.
test: host-packages lint build
	cargo test --workspace --locked --no-fail-fast
	$(E2E) trial
	$(E2E) demo

# Every machine that must come to the right end by itself: good, bad and damaged slots, both boot loaders. CASES chooses
# some; `evenkeel-e2e trial --list` says what there is.
trials: build
	$(E2E) trial $(or $(CASES),--all)

# Machines that are installed, updated, reset, broken and brought back, with a shell on a serial line; some ten boots each.
# STORIES chooses some, GRUB=1 the other loader, BIOS=1 that one on machines with BIOS; `evenkeel-e2e life --list` says what
# there is.
lives: build
	$(E2E) life $(STORIES) $(if $(GRUB),--grub) $(if $(BIOS),--bios)

# Machines that update themselves, go back or begin anew while their power is cut, CUTS times in all; some two minutes for each.
# TALE chooses: update, given-up, rollback, reset, or install, which is told only when it is chosen; GRUB=1 the other loader.
power: build
	$(E2E) power --cuts $(or $(CUTS),100) --seed $(or $(SEED),1) $(if $(TALE),--tale $(TALE)) $(if $(GRUB),--grub)

# Two versions of a Debian that differ by an update of one package: how much of the second is downloaded and written, as
# layers and squashed. The versions are built once, which takes minutes.
delta: build
	$(E2E) delta

# Our staging beside what the machine could do at best and beside the usual tools; wants a machine without other work.
# ARGS: --size MIB --files N --rounds N; the large one is --size 3000 --files 150000.
bench-node: host-packages build
	PATH="$$($(E2E) containerd):$$PATH" RUSTFLAGS="-C target-feature=+crt-static" \
	cargo bench --locked --target $(TARGET) -p evenkeel-node-agent --bench staging -- $(ARGS)

# A rollout over NODES nodes with a real control plane and the real operator; wants a machine without other work.
# ARGS: --budget N --idle SECONDS.
bench-fleet: build
	RUSTFLAGS="-C target-feature=+crt-static" cargo bench --locked --target $(TARGET) -p evenkeel-tests --bench fleet -- \
	--nodes $(or $(NODES),1000) $(ARGS)

build:
	$(STATIC)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, banned crates, sources; a test does the same. cargo-deny is built once and kept outside the checkout.
CACHE = $${EVENKEEL_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/evenkeel}
DENY_VERSION = 0.20.2
deny:
	cargo install --quiet --locked --root "$(CACHE)/cargo-deny" --debug --version $(DENY_VERSION) cargo-deny
	"$(CACHE)/cargo-deny/bin/cargo-deny" --offline check bans licenses sources

fmt:
	cargo fmt --all

# Each target for FUZZ_SECONDS, one after the other; a finding ends it, and lies in node-agent/fuzz/artifacts. `make test`
# runs the seeds through the same functions. FUZZ_TARGETS chooses.
FUZZ_SECONDS = 600
FUZZ_DIR = node-agent/fuzz
FUZZ_TARGETS = $(notdir $(basename $(wildcard $(FUZZ_DIR)/fuzz_targets/*.rs)))
fuzz:
	@rustc +nightly --version >/dev/null 2>&1 || { echo "fuzzing needs nightly Rust: rustup toolchain install nightly"; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || { echo "fuzzing needs cargo-fuzz: cargo install --locked cargo-fuzz"; exit 1; }
	cp Cargo.lock $(FUZZ_DIR)/Cargo.lock
	cd $(FUZZ_DIR) && cargo +nightly fuzz build --fuzz-dir .
	@set -e; cd $(FUZZ_DIR); for target in $(FUZZ_TARGETS); do mkdir -p corpus/$$target; \
	echo "== $$target for $(FUZZ_SECONDS) s"; \
	cargo +nightly fuzz run --fuzz-dir . $$target corpus/$$target seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) \
	-timeout=10 -rss_limit_mb=1024 -print_final_stats=1; done

# Rollouts in a simulated fleet that misbehaves, each seed once to its end and once to a deletion in the middle: two
# schedules; prints how many went by in a second. A failing one prints its seed; FIRST=seed SEEDS=1 runs it alone.
SEEDS = 10000
FIRST = 0
sim:
	EVENKEEL_SIM_FIRST=$(FIRST) EVENKEEL_SIM_CASES=$(SEEDS) cargo test --release --locked -p evenkeel-operator-core \
		--test simulation -- --nocapture --quiet

# Rollouts in whose middle operator and agents are replaced by those of another version, forwards and back. OTHER is a revision
# of this repository.
OTHER_FOLDER = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/other-version
versions: host-packages
	@test -n "$(OTHER)" || { echo "say which version: make versions OTHER=REVISION"; exit 1; }
	rm -rf $(OTHER_FOLDER)/source && mkdir -p $(OTHER_FOLDER)/source
	git archive $(OTHER) | tar -x -C $(OTHER_FOLDER)/source
	cd $(OTHER_FOLDER)/source && CARGO_TARGET_DIR=$(OTHER_FOLDER)/target cargo build --locked \
		-p evenkeel-operator -p evenkeel-node-agent --bins
	EVENKEEL_OTHER_VERSION=$(OTHER_FOLDER)/target/debug cargo test --locked -p evenkeel-tests --test fleet_versions -- --ignored

# How long one decision takes over 500, 5,000 and 50,000 nodes.
bench-planner:
	cargo bench --locked -p evenkeel-operator-core --bench planner

# The API definitions, from the types.
generate:
	cargo run --quiet --package evenkeel-crds --bin crdgen crds/yaml
	cp crds/yaml/*.yaml charts/evenkeel-crds/templates/

# The foreign programs that judge what is written: program and the Debian package that has it.
HOST_TOOLS = cc:gcc fsck.erofs:erofs-utils umoci:umoci veritysetup:cryptsetup-bin getfattr:attr sgdisk:gdisk \
	fsck.fat:dosfstools mdir:mtools mke2fs:e2fsprogs skopeo:skopeo docker-registry:docker-registry openssl:openssl \
	grub-editenv:grub-common /usr/lib/grub/i386-pc/grub-bios-setup:grub-pc-bin sbsign:sbsigntool \
	/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi:grub-efi-amd64-bin

# Root and Debian: what is missing is installed, what is there is left alone.
host-packages:
	@missing=$$(for tool in $(HOST_TOOLS); do command -v $${tool%%:*} >/dev/null || echo $${tool##*:}; done); \
	if [ -n "$$missing" ]; then echo "installing $$missing" && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

# Thin on purpose: what is done stands in the packages.
.PHONY: test generate fmt lint host-packages

# The foreign tools that judge what is written: program and the Debian package that has it.
HOST_TOOLS = fsck.erofs:erofs-utils umoci:umoci veritysetup:cryptsetup-bin getfattr:attr sgdisk:gdisk \
	fsck.fat:dosfstools mdir:mtools mke2fs:e2fsprogs

# Everything that is checked, in the order in which it is cheap to fail.
test: host-packages lint
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

fmt:
	cargo fmt --all

# The API definitions, from the types.
generate:
	cargo run --quiet --package evenkeel-crds --bin crdgen crds/yaml
	cp crds/yaml/*.yaml charts/evenkeel-crds/templates/

# Root and Debian: what is missing is installed, what is there is left alone.
host-packages:
	@missing=$$(for tool in $(HOST_TOOLS); do command -v $${tool%%:*} >/dev/null || echo $${tool##*:}; done); \
	if [ -n "$$missing" ]; then echo "installing $$missing" && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

# Thin on purpose: what is done stands in the packages.
.PHONY: test generate fmt lint

# Everything that is checked, in the order in which it is cheap to fail.
test: lint
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

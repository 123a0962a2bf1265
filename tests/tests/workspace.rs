//! The workspace keeps its own rules: pure cores stay pure, and generated files are what the types generate.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What a core must not be able to reach: a runtime, a client, system calls, HTTP, or the file system.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "kube",
    "kube-client",
    "kube-runtime",
    "nix",
    "rustix",
    "hyper",
    "hyper-util",
    "reqwest",
    "h2",
    "tower",
    "oci-client",
    "fatfs",
    "gpt",
    "tempfile",
    "walkdir",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Package name to the names of the packages that it is built with (no dev-dependencies).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let built_with = node["deps"].as_array().unwrap().iter().filter(|dependency| {
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev")
            });
            let built_with =
                built_with.map(|dependency| names[dependency["pkg"].as_str().unwrap()].to_owned());
            (names[node["id"].as_str().unwrap()].to_owned(), built_with.collect())
        })
        .collect()
}

fn reachable(from: &str, dependencies: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        for dependency in &dependencies[&name] {
            if seen.insert(dependency.clone()) {
                open.push(dependency.clone());
            }
        }
    }
    seen
}

#[test]
fn the_cores_and_the_types_reach_no_io() {
    let dependencies = dependencies();
    for package in ["evenkeel-crds", "evenkeel-operator-core", "evenkeel-node-agent-core", "evenkeel-trust"] {
        let reached = reachable(package, &dependencies);
        assert!(reached.contains("serde"), "the walk over the dependencies of {package} found nothing");
        let forbidden: Vec<_> = FORBIDDEN.iter().filter(|name| reached.contains(**name)).collect();
        assert!(forbidden.is_empty(), "{package} can reach {forbidden:?}");
    }
}

#[test]
fn the_walk_would_notice_a_client() {
    let reached = reachable("evenkeel-node-agent", &dependencies());
    assert!(reached.contains("tokio") && reached.contains("kube-client"));
}

#[test]
fn generated_definitions_are_current() {
    for (file, body) in evenkeel_crds::definitions() {
        for folder in ["crds/yaml", "charts/evenkeel-crds/templates"] {
            let path = root().join(folder).join(&file);
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == body, "{} is not what the types generate: run `make generate`", path.display());
        }
    }
}

//! `ManagedOSVersion`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{accepted, refused};

fn with(field: &str, value: Value) -> Value {
    let mut spec = json!({ "version": "1.2", "metadata": { "upgradeImage": "registry.example/os:1.2" } });
    spec[field] = value;
    spec
}

#[tokio::test]
async fn versions_that_are_accepted() -> Result<()> {
    let specs = [
        json!({ "version": "1.2", "metadata": { "upgradeImage": "registry.example/os:1.2" } }),
        with("type", json!("container")),
        with("minVersion", json!("v1.0")),
        with(
            "metadata",
            json!({ "upgradeImage": "os:1", "displayName": "OS", "uri": "https://example.org/os.iso", "created": 1 }),
        ),
        json!({ "version": "1.2", "type": "iso", "metadata": { "uri": "https://example.org/os.iso" } }),
    ];
    accepted("ManagedOSVersion", &specs).await
}

#[tokio::test]
async fn versions_that_are_refused() -> Result<()> {
    let container = "a version of type container needs metadata.upgradeImage";
    let iso = json!({ "version": "1", "type": "iso", "metadata": { "upgradeImage": "os:1" } });
    let table = [
        (json!({ "metadata": { "upgradeImage": "os:1" } }), "spec.version: Required value"),
        (with("version", json!("")), "spec.version"),
        (with("version", json!("x".repeat(129))), "Too long"),
        (with("metadata", json!({})), container),
        (with("metadata", json!({ "uri": "https://example.org/os.iso" })), container),
        (with("metadata", json!({ "upgradeImage": "" })), "spec.metadata.upgradeImage"),
        (with("metadata", json!({ "upgradeImage": "os:1", "created": -1 })), "greater than or equal to 0"),
        (
            with("metadata", json!({ "upgradeImage": "os:1", "created": "today" })),
            "metadata.created: expected numeric",
        ),
        (json!({ "version": "1" }), "spec.metadata: Required value"),
        (iso, "a version of type iso needs metadata.uri"),
        (with("type", json!("floppy")), "\"container\", \"iso\""),
        (with("minVersion", json!("")), "spec.minVersion"),
        (with("upgradeContainer", json!({})), "field not declared in schema"),
    ];
    refused("ManagedOSVersion", &table).await
}

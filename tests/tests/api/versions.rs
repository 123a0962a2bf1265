//! `ManagedOSVersion`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::accepted;

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

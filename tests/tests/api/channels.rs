//! `ManagedOSVersionChannel`, and an image object that follows one.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{KEY, accepted, api, object};

fn json_channel() -> Value {
    json!({ "type": "json", "options": { "uri": "https://example.org/versions.json" } })
}

fn custom() -> Value {
    json!({ "type": "custom", "options": { "image": "registry.example/channel:1" } })
}

fn registry() -> Value {
    json!({ "type": "registry", "options": { "repository": "registry.example/os" } })
}

fn with(mut spec: Value, path: &[&str], value: Value) -> Value {
    let mut place = &mut spec;
    for part in path {
        place = &mut place[*part];
    }
    *place = value;
    spec
}

#[tokio::test]
async fn channels_that_are_accepted() -> Result<()> {
    let whole = json!({
        "type": "custom", "syncInterval": "1h30m", "enabled": false, "deleteNoLongerInSyncVersions": true,
        "registry": "mirror.example:5000/all/", "options": { "image": "registry.example/channel:1" },
        "pull": { "plainHttp": true }, "verification": { "rules": [{ "keys": [KEY] }] },
    });
    let plain = with(json_channel(), &["options", "uri"], json!("http://example.org/versions.json"));
    let specs = [
        json_channel(),
        custom(),
        registry(),
        with(registry(), &["options", "constraint"], json!(">=1.2, <2")),
        with(json_channel(), &["syncInterval"], json!("168h")),
        with(json_channel(), &["syncInterval"], json!("60s")),
        with(plain, &["pull"], json!({ "plainHttp": true })),
        whole,
    ];
    accepted("ManagedOSVersionChannel", &specs).await
}

#[tokio::test]
async fn absent_fields_have_their_defaults() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let channel =
        object("ManagedOSVersionChannel", "defaults", &with(json_channel(), &["enabled"], json!(null)));
    let made = api(&client, "ManagedOSVersionChannel").create(&PostParams::default(), &channel).await?;
    let spec = &made.data["spec"];
    assert_eq!((&spec["syncInterval"], &spec["enabled"]), (&json!("1h"), &json!(true)));
    assert_eq!(spec["deleteNoLongerInSyncVersions"], json!(false));
    Ok(())
}

#[tokio::test]
async fn images_that_follow_a_channel() -> Result<()> {
    let follow = |channel: Value| json!({ "channel": channel });
    let specs = [
        follow(json!({ "name": "stable" })),
        follow(json!({ "name": "stable", "constraint": "~1.4", "promotion": "Automatic" })),
        follow(json!({ "name": "stable", "promotion": "Approved" })),
    ];
    accepted("ManagedOSImage", &specs).await
}

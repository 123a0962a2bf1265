//! `ManagedOSVersionChannel`, and an image object that follows one.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{KEY, accepted, api, object, refused};

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
async fn channels_that_are_refused() -> Result<()> {
    let needs =
        |kind: &str, option: &str| format!("type {kind} needs options.{option}, and no other type has it");
    let interval = |text: &str| with(json_channel(), &["syncInterval"], json!(text));
    let between = "syncInterval must be between 1m and 168h";
    let should = "in body should match";
    let uri = |text: &str| with(json_channel(), &["options", "uri"], json!(text));
    let table = [
        (json!({ "options": {} }), "spec.type: Required value".to_owned()),
        (with(json_channel(), &["type"], json!("ftp")), "\"json\", \"custom\", \"registry\"".into()),
        (json!({ "type": "json", "options": {} }), needs("json", "uri")),
        (json!({ "type": "custom", "options": {} }), needs("custom", "image")),
        (json!({ "type": "registry", "options": {} }), needs("registry", "repository")),
        (with(custom(), &["options", "uri"], json!("https://example.org/x")), needs("json", "uri")),
        (with(json_channel(), &["options", "image"], json!("r.example/c:1")), needs("custom", "image")),
        (with(custom(), &["options", "repository"], json!("r.example/os")), needs("registry", "repository")),
        (
            with(json_channel(), &["options", "constraint"], json!("1")),
            "options.constraint is for type registry".into(),
        ),
        (with(registry(), &["options", "constraint"], json!("1 || 2")), should.into()),
        (with(registry(), &["options", "repository"], json!("registry.example/os:1")), should.into()),
        (with(registry(), &["options", "repository"], json!("os")), should.into()),
        (with(custom(), &["options", "image"], json!("https://registry.example/c")), should.into()),
        (uri("ftp://example.org/x"), should.into()),
        (uri("https://me:secret@example.org/x"), should.into()),
        (uri("http://example.org/x"), "options.uri without TLS needs pull.plainHttp".into()),
        (interval("59s"), between.into()),
        (interval("168h1s"), between.into()),
        (interval("0s"), between.into()),
        (interval("hourly"), should.into()),
        (interval("1d"), should.into()),
        (interval(""), "spec.syncInterval".into()),
        (
            with(json_channel(), &["verification"], json!({ "rules": [{ "keys": [KEY] }] })),
            "verification is for type custom alone".into(),
        ),
        (with(json_channel(), &["registry"], json!("https://mirror.example")), should.into()),
        (with(json_channel(), &["options", "timeout"], json!("3s")), "field not declared in schema".into()),
    ];
    let table: Vec<(Value, &str)> =
        table.iter().map(|(spec, words)| (spec.clone(), words.as_str())).collect();
    refused("ManagedOSVersionChannel", &table).await
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
    accepted("ManagedOSImage", &specs).await?;
    let one_of = "exactly one of osImage, managedOSVersionName and channel must be set";
    let mut both = follow(json!({ "name": "stable" }));
    both["osImage"] = json!("os:1");
    let table = [
        (both, one_of),
        (follow(json!({})), "spec.channel.name: Required value"),
        (follow(json!({ "name": "x".repeat(64) })), "Too long"),
        (follow(json!({ "name": "stable", "promotion": "Never" })), "\"Approved\", \"Automatic\""),
        (follow(json!({ "name": "stable", "constraint": "1 || 2" })), "in body should match"),
    ];
    refused("ManagedOSImage", &table).await
}

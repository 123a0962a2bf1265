//! `ManagedOSImage`.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{DIGEST, KEY, accepted, api, object};

/// A good spec with one more field.
fn image_with(path: &[&str], value: Value) -> Value {
    let mut spec = json!({ "osImage": "registry.example/os:1" });
    let mut place = &mut spec;
    for part in path {
        place = &mut place[*part];
    }
    *place = value;
    spec
}

#[tokio::test]
async fn images_that_are_accepted() -> Result<()> {
    let whole = json!({
        "osImage": format!("registry.example:5000/team/os@{DIGEST}"),
        "nodeSelector": { "matchLabels": { "role": "worker" } },
        "cordon": true,
        "drain": {
            "enabled": true, "gracePeriod": 30, "timeoutSeconds": 600, "force": true, "deleteEmptydirData": false,
        },
        "rollout": {
            "maxUnavailable": "25%", "maxStaging": 3, "order": "ControlPlaneLast", "soakSeconds": 60,
            "pauses": [{ "owner": "me", "reason": "a holiday", "until": "2030-01-01T00:00:00Z" }],
        },
        "healthGates": [{ "name": "network", "nodeCondition": { "type": "NetworkUnavailable", "status": "False" } }],
        "pull": {
            "plainHttp": true,
            "mirrors": [
                { "registry": "docker.io", "url": "https://harbor.example/hub/" },
                { "registry": "*", "url": "http://127.0.0.1:30020", "resolve": true },
                { "registry": "registry.example:5000", "url": "http://[fd00::1]:5000/a/b_c" },
            ],
            "caBundle": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "proxy": { "url": "http://proxy.example:3128", "noProxy": ["10.0.0.0/8", "registry.example"] },
        },
        "verification": { "rules": [
            { "repositories": ["*"], "keys": [KEY, KEY.trim()], "threshold": 2 },
            { "repositories": ["registry.example:5000/*", "r.example/a/b", "r.example/a/*"], "keys": [KEY] },
        ] },
        "reboot": { "delaySeconds": 5, "deadlineSeconds": 600, "commitDeadlineSeconds": 1200, "onCloudConfigChange": false },
    });
    let specs = [
        json!({ "osImage": "registry.example/os:1" }),
        json!({ "osImage": "127.0.0.1:5000/os:v1.2.3-rc.1_x" }),
        json!({ "osImage": format!("registry.example/os:1@{DIGEST}") }),
        json!({ "managedOSVersionName": "v1" }),
        json!({ "osImage": "os", "concurrency": 2 }),
        image_with(&["rollout", "maxUnavailable"], json!(1)),
        image_with(&["rollout", "maxUnavailable"], json!("1%")),
        image_with(&["rollout", "maxUnavailable"], json!("100%")),
        image_with(&["nodeSelector"], json!({})),
        image_with(&["verification"], json!({ "rules": [{ "keys": [KEY] }] })),
        json!({ "osImage": "os", "channel": null, "drain": { "taint": null }, "pull": { "caBundle": null } }),
        whole,
    ];
    accepted("ManagedOSImage", &specs).await
}

#[tokio::test]
async fn absent_fields_have_the_defaults_that_the_documentation_names() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let images = api(&client, "ManagedOSImage");
    let spec = json!({ "osImage": "os:1", "nodeSelector": { "matchLabels": { "none": "none" } } });
    let made = images.create(&PostParams::default(), &object("ManagedOSImage", "defaults", &spec)).await?;
    let spec = &made.data["spec"];
    assert_eq!(spec["cordon"], json!(true));
    let drain = json!({
        "enabled": true, "dryRun": true, "timeoutSeconds": 3600, "onTimeout": "UncordonAndFail", "force": false,
        "deleteEmptydirData": true, "ignoreDaemonSets": true, "order": "AllAtOnce", "waitForVolumes": true,
        "preferNoSchedule": false,
    });
    assert_eq!(spec["drain"], drain);
    assert_eq!(
        spec["reboot"],
        json!({ "delaySeconds": 0, "deadlineSeconds": 900, "commitDeadlineSeconds": 1800, "onCloudConfigChange": true })
    );
    assert_eq!(spec["pull"], json!({ "plainHttp": false, "background": false }));
    let rollout = json!({
        "order": "ControlPlaneFirst", "soakSeconds": 0, "oneDomainAtATime": false,
        "failurePolicy": { "onFirstFailure": "Stop", "action": "Pause", "maxAttempts": 1, "backoffSeconds": 300 },
    });
    assert_eq!(spec["rollout"], rollout);
    Ok(())
}

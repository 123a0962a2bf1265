//! `ManagedOSImage`.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{DIGEST, KEY, accepted, api, object, refused};

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

fn mirror(mirror: &Value) -> Value {
    image_with(&["pull", "mirrors"], json!([mirror]))
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
        "reboot": { "delaySeconds": 5, "deadlineSeconds": 600, "commitDeadlineSeconds": 1200 },
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
        whole,
    ];
    accepted("ManagedOSImage", &specs).await
}

#[tokio::test]
async fn images_that_are_refused() -> Result<()> {
    let one_of = "exactly one of osImage, managedOSVersionName and channel must be set";
    let count = "maxUnavailable must be a number above 0 or a percentage from \"1%\" to \"100%\"";
    let unavailable = |value: Value| (image_with(&["rollout", "maxUnavailable"], value), count);
    let gate = json!({ "name": "g", "nodeCondition": { "type": "Ready", "status": "True" } });
    let gates: Vec<Value> =
        (0..17).map(|n| json!({ "name": format!("g{n}"), "nodeCondition": gate["nodeCondition"] })).collect();
    let table = [
        (json!({}), one_of),
        (json!({ "osImage": "os:1", "managedOSVersionName": "v1" }), one_of),
        (
            json!({ "osImage": "os:1", "concurrency": 1, "rollout": { "maxUnavailable": 1 } }),
            "concurrency is another name of rollout.maxUnavailable: set one of them",
        ),
        unavailable(json!(0)),
        unavailable(json!(-1)),
        unavailable(json!("0%")),
        unavailable(json!("101%")),
        unavailable(json!("50")),
        unavailable(json!("half")),
        (json!({ "osImage": "" }), "spec.osImage"),
        (json!({ "osImage": "https://registry.example/os:1" }), "spec.osImage in body should match"),
        (json!({ "osImage": "registry.example/Os:1" }), "spec.osImage in body should match"),
        (json!({ "osImage": "os:1 " }), "spec.osImage in body should match"),
        (json!({ "osImage": "os@sha256:0123" }), "spec.osImage in body should match"),
        (json!({ "osImage": format!("os:{}", "x".repeat(600)) }), "Too long"),
        (json!({ "managedOSVersionName": "" }), "spec.managedOSVersionName"),
        (image_with(&["concurrency"], json!(0)), "greater than or equal to 1"),
        (image_with(&["drain", "timeoutSeconds"], json!(0)), "greater than or equal to 1"),
        (image_with(&["drain", "gracePeriod"], json!(-1)), "greater than or equal to 0"),
        (image_with(&["rollout", "maxStaging"], json!(0)), "greater than or equal to 1"),
        (image_with(&["rollout", "soakSeconds"], json!(-1)), "greater than or equal to 0"),
        (image_with(&["rollout", "order"], json!("Random")), "\"ControlPlaneFirst\", \"ControlPlaneLast\""),
        (image_with(&["rollout", "pauses"], json!([{ "owner": "" }])), "spec.rollout.pauses[0].owner"),
        (image_with(&["rollout", "pauses"], json!([{ "owner": "me", "until": "tomorrow" }])), "date-time"),
        (image_with(&["rollout", "pauses"], json!([{ "owner": "me" }, { "owner": "me" }])), "duplicate"),
        (image_with(&["healthGates"], json!([gate, gate])), "duplicate"),
        (image_with(&["healthGates"], json!(gates)), "at most 16 items"),
        (
            image_with(
                &["healthGates"],
                json!([{ "name": "g", "nodeCondition": { "type": "Ready", "status": "Maybe" } }]),
            ),
            "\"True\", \"False\", \"Unknown\"",
        ),
        (
            image_with(&["healthGates"], json!([{ "name": "g" }])),
            "a gate is exactly one of nodeCondition, cel, workload, prometheus, annotation and job",
        ),
        (image_with(&["reboot", "delaySeconds"], json!(-1)), "greater than or equal to 0"),
        (image_with(&["reboot", "deadlineSeconds"], json!(29)), "greater than or equal to 30"),
        (image_with(&["reboot", "commitDeadlineSeconds"], json!(90_000)), "less than or equal to 86400"),
        (
            image_with(&["nodeSelector"], json!({ "matchExpressions": [{ "key": "a" }] })),
            "operator: Required value",
        ),
        (image_with(&["pull", "plainHttp"], json!("yes")), "expected boolean"),
        (mirror(&json!({ "registry": "*" })), "url: Required value"),
        (
            mirror(&json!({ "registry": "r.example/os", "url": "https://m.example" })),
            "registry in body should match",
        ),
        (mirror(&json!({ "registry": "*", "url": "m.example" })), "url in body should match"),
        (
            mirror(&json!({ "registry": "*", "url": "https://me:secret@m.example" })),
            "url in body should match",
        ),
        (mirror(&json!({ "registry": "*", "url": "https://m.example?a=b" })), "url in body should match"),
        (image_with(&["pull", "caBundle"], json!("AAAA")), "caBundle in body should match"),
        (image_with(&["pull", "caBundle"], json!("x".repeat(16_385))), "may not be more than 16384"),
        (image_with(&["pull", "proxy"], json!({ "noProxy": ["a"] })), "url: Required value"),
        (image_with(&["pull", "proxy"], json!({ "url": "http://me:secret@p" })), "url in body should match"),
    ];
    refused("ManagedOSImage", &table).await
}

#[tokio::test]
async fn rules_that_nothing_could_satisfy_are_refused() -> Result<()> {
    let rule = |rule: Value| image_with(&["verification"], json!({ "rules": [rule] }));
    let repository = |text: &str| rule(json!({ "keys": [KEY], "repositories": [text] }));
    let private = KEY.replace("PUBLIC", "PRIVATE");
    let should = "in body should match";
    let table = [
        (image_with(&["verification"], json!({})), "spec.verification.rules: Required value"),
        (image_with(&["verification"], json!({ "rules": [] })), "should have at least 1 items"),
        (rule(json!({ "keys": [] })), "should have at least 1 items"),
        (rule(json!({ "keys": [private] })), should),
        (rule(json!({ "keys": ["MCowBQYDK2VwAyEA"] })), should),
        (rule(json!({ "keys": [KEY], "threshold": 2 })), "threshold is higher than the number of keys"),
        (rule(json!({ "keys": [KEY], "threshold": 0 })), "greater than or equal to 1"),
        (rule(json!({ "keys": [KEY], "repositories": [] })), "should have at least 1 items"),
        (repository("os"), should),
        (repository("r.example/os:1"), should),
        (repository("r.example/o*"), should),
        (repository("*/os"), should),
    ];
    refused("ManagedOSImage", &table).await
}

#[tokio::test]
async fn what_is_unknown_is_refused_and_never_ignored() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client().await?;
    let table = [
        (image_with(&["rolout"], json!({})), "spec.rolout: field not declared in schema"),
        (image_with(&["rollout", "steps"], json!([])), "spec.rollout.steps: field not declared in schema"),
        (image_with(&["hook"], json!([])), "spec.hook: field not declared in schema"),
    ];
    refused("ManagedOSImage", &table).await?;

    let manifest = |spec: &Value| serde_json::to_string(&object("ManagedOSImage", "unknown", spec)).unwrap();
    for (spec, _) in &table {
        for way in [&["apply", "--server-side", "-f", "-"][..], &["apply", "-f", "-"], &["create", "-f", "-"]]
        {
            let said =
                cluster.kubectl_with(way, &manifest(spec)).await.expect_err("kubectl took it").to_string();
            assert!(said.contains("unknown field") || said.contains("not declared"), "{way:?}: {said}");
        }
        let request =
            http::Request::post("/apis/evenkeel.dev/v1alpha1/managedosimages?fieldValidation=Strict")
                .header("content-type", "application/json")
                .body(manifest(spec).into_bytes())?;
        let said = client.request_text(request).await.unwrap_err().to_string();
        assert!(said.contains("strict decoding error: unknown field"), "{said}");
    }
    assert!(api(&client, "ManagedOSImage").get_opt("unknown").await?.is_none());
    Ok(())
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
        json!({ "delaySeconds": 0, "deadlineSeconds": 900, "commitDeadlineSeconds": 1800 })
    );
    assert_eq!(spec["pull"], json!({ "plainHttp": false, "background": false }));
    assert_eq!(spec["rollout"], json!({ "order": "ControlPlaneFirst", "soakSeconds": 0 }));
    Ok(())
}

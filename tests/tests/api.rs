//! The API types in a real API server: what it accepts and refuses, with which words, what it fills in and shows.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams, ValidationDirective},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC \
    KEY-----\n";

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("evenkeel.dev", "v1alpha1", kind));
    Api::all_with(client.clone(), &resource)
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Has the API server judge a spec without keeping it: `None`, or what it says.
async fn judge(client: &Client, kind: &str, spec: &Value) -> Option<String> {
    let params = PatchParams { dry_run: true, ..PatchParams::apply("tests") };
    let params = params.validation(ValidationDirective::Strict);
    let patch = Patch::Apply(object(kind, "judged", spec));
    api(client, kind).patch("judged", &params, &patch).await.err().map(|error| error.to_string())
}

async fn accepted(kind: &str, specs: &[Value]) -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    for spec in specs {
        let said = judge(&client, kind, spec).await;
        assert!(said.is_none(), "{spec} was refused: {}", said.unwrap_or_default());
    }
    Ok(())
}

/// Each spec is refused, and the answer has the words that tell a person why.
async fn refused(kind: &str, table: &[(Value, &str)]) -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    for (spec, words) in table {
        match judge(&client, kind, spec).await {
            None => panic!("{spec} was accepted, and should be refused with `{words}`"),
            Some(said) => assert!(said.contains(words), "{spec}: `{words}` is not in: {said}"),
        }
    }
    Ok(())
}

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
        "reboot": { "deadlineSeconds": 600, "commitDeadlineSeconds": 1200 },
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
    let one_of = "exactly one of osImage and managedOSVersionName must be set";
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
        (image_with(&["healthGates"], json!([{ "name": "g" }])), "nodeCondition: Required value"),
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
async fn versions_and_channels() -> Result<()> {
    let version = json!({ "version": "1.2", "metadata": { "upgradeImage": "registry.example/os:1.2" } });
    accepted("ManagedOSVersion", &[version]).await?;
    let table = [
        (json!({ "metadata": { "upgradeImage": "os:1" } }), "spec.version: Required value"),
        (json!({ "version": "", "metadata": { "upgradeImage": "os:1" } }), "spec.version"),
        (json!({ "version": "1", "metadata": {} }), "spec.metadata.upgradeImage: Required value"),
        (json!({ "version": "1" }), "spec.metadata: Required value"),
        (
            json!({ "version": "1", "type": "floppy", "metadata": { "upgradeImage": "os:1" } }),
            "\"container\"",
        ),
    ];
    refused("ManagedOSVersion", &table).await?;
    let channel = json!({ "type": "json", "options": { "uri": "https://example.org/versions.json" } });
    accepted("ManagedOSVersionChannel", &[channel]).await?;
    let table = [
        (
            json!({ "type": "json", "options": { "uri": "ftp://example.org/x" } }),
            "spec.options.uri in body should match",
        ),
        (json!({ "type": "json", "options": {} }), "spec.options.uri: Required value"),
        (json!({ "type": "custom", "options": { "uri": "https://example.org/" } }), "\"json\""),
        (
            json!({ "type": "json", "options": { "uri": "https://example.org/" }, "syncIntervalSeconds": 59 }),
            "greater than or equal to 60",
        ),
    ];
    refused("ManagedOSVersionChannel", &table).await
}

fn order(target: &str) -> Value {
    json!({
        "planId": "p1",
        "image": format!("registry.example/os@{DIGEST}"),
        "target": target,
        "notAfter": "2030-01-01T00:00:00Z",
    })
}

fn order_without(target: &str, field: &str) -> Value {
    let mut spec = order(target);
    spec.as_object_mut().unwrap().remove(field);
    spec
}

#[tokio::test]
async fn plans() -> Result<()> {
    let mut reverted = order("Reverted");
    reverted["revert"] = json!({ "cause": "User", "message": "no more" });
    let disruption =
        json!({ "since": "2026-01-01T00:00:00Z", "foundCordoned": false, "bootIdBefore": "x", "attempt": 1 });
    let mut disrupted = order("Booted");
    disrupted["disruption"] = disruption.clone();
    accepted("NodePlan", &[json!({}), order("Staged"), order("Committed"), reverted, disrupted.clone()])
        .await?;
    disrupted["disruption"]["attempt"] = json!(0);
    let mut tag = order("Staged");
    tag["image"] = json!("registry.example/os:1");
    let mut cause = order("Reverted");
    cause["revert"] = json!({ "cause": "Boredom" });
    let together = "planId, image and target are set together";
    let table = [
        (order_without("Staged", "planId"), together),
        (order_without("Staged", "image"), together),
        (order_without("Staged", "target"), together),
        (
            order_without("Booted", "notAfter"),
            "a target of Booted needs notAfter: an approval to reboot runs out",
        ),
        (order("Reverted"), "a target of Reverted needs revert: the cause is part of the order"),
        (tag, "spec.image in body should match"),
        (order("Backwards"), "\"Staged\", \"Booted\", \"Committed\", \"Reverted\""),
        (cause, "\"Bootloader\""),
        (disrupted, "greater than or equal to 1"),
    ];
    refused("NodePlan", &table).await
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
async fn an_order_keeps_its_image_and_moves_forward_only() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "moves", &order("Staged"))).await?;
    let other = format!("registry.example/os@sha256:{}", "f".repeat(64));
    let change = |spec: Value| Patch::Merge(json!({ "spec": spec }));
    let params = PatchParams::default();
    let said =
        plans.patch("moves", &params, &change(json!({ "image": other }))).await.unwrap_err().to_string();
    assert!(said.contains("an order's image does not change: a new image needs a new planId"), "{said}");
    plans.patch("moves", &params, &change(json!({ "target": "Booted" }))).await?;
    let back = change(json!({ "target": "Staged" }));
    let said = plans.patch("moves", &params, &back).await.unwrap_err().to_string();
    assert!(said.contains("an order's target moves forward only"), "{said}");
    let reverted = json!({ "target": "Reverted", "revert": { "cause": "User" } });
    plans.patch("moves", &params, &change(reverted)).await?;
    let again = change(json!({ "target": "Committed" }));
    let said = plans.patch("moves", &params, &again).await.unwrap_err().to_string();
    assert!(said.contains("an order's target moves forward only"), "{said}");
    plans
        .patch("moves", &params, &change(json!({ "planId": "p2", "image": other, "target": "Staged" })))
        .await?;
    let nothing = json!({ "planId": null, "image": null, "target": null });
    plans.patch("moves", &params, &change(nothing)).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_unknown_is_refused_and_never_ignored() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client().await?;
    let table = [
        (image_with(&["rolout"], json!({})), "spec.rolout: field not declared in schema"),
        (image_with(&["rollout", "steps"], json!([])), "spec.rollout.steps: field not declared in schema"),
        (image_with(&["hooks"], json!([])), "spec.hooks: field not declared in schema"),
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
    let drain =
        json!({ "enabled": true, "timeoutSeconds": 3600, "force": false, "deleteEmptydirData": true });
    assert_eq!(spec["drain"], drain);
    assert_eq!(spec["reboot"], json!({ "deadlineSeconds": 900, "commitDeadlineSeconds": 1800 }));
    assert_eq!(spec["pull"], json!({ "plainHttp": false, "background": false }));
    assert_eq!(spec["rollout"], json!({ "order": "ControlPlaneFirst", "soakSeconds": 0 }));
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_what_a_person_asks_for() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client().await?;
    let images = api(&client, "ManagedOSImage");
    let spec = json!({ "osImage": "os:1", "nodeSelector": { "matchLabels": { "none": "none" } } });
    images.create(&PostParams::default(), &object("ManagedOSImage", "shown", &spec)).await?;
    let status = json!({
        "image": format!("registry.example/os@{DIGEST}"),
        "version": "4.5.6",
        "summary": "7/10 updated, 1 rebooting",
        "nodes": { "total": 10, "updated": 7, "updating": 1, "failed": 0 },
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "RollingOut", "message": "not done",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let params = PatchParams::default();
    images.patch_status("shown", &params, &Patch::Merge(json!({ "status": status }))).await?;
    let table = cluster.kubectl(&["get", "mosi", "shown"]).await?;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "VERSION", "NODES", "UPDATED", "READY", "STATUS", "AGE"]
    );
    assert!(
        lines[1]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .starts_with("shown 4.5.6 10 7 False 7/10 updated, 1 rebooting"),
        "{table}"
    );
    assert!(cluster.kubectl(&["get", "mosi", "shown", "-o", "wide"]).await?.contains(DIGEST));

    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "shown", &order("Booted"))).await?;
    let status = json!({
        "phase": "RolledBack",
        "booted": { "slot": "a", "digest": DIGEST, "bootId": "x" },
        "rolledBack": { "cause": "HostCheck", "message": "no network", "at": "2026-01-01T00:00:00Z" },
    });
    plans.patch_status("shown", &params, &Patch::Merge(json!({ "status": status }))).await?;
    let table = cluster.kubectl(&["get", "nplan", "shown", "--no-headers"]).await?;
    assert!(
        table
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .starts_with("shown Booted RolledBack a HostCheck"),
        "{table}"
    );
    let all = cluster.kubectl(&["get", "evenkeel"]).await?;
    assert!(
        all.contains("managedosimage.evenkeel.dev/shown") && all.contains("nodeplan.evenkeel.dev/shown"),
        "{all}"
    );
    let explained = cluster.kubectl(&["explain", "mosi.spec.rollout.maxUnavailable"]).await?;
    assert!(explained.contains("may be unavailable at once"), "{explained}");
    Ok(())
}

#[tokio::test]
async fn a_status_has_only_phases_that_exist() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "phases", &json!({}))).await?;
    let patch = Patch::Merge(json!({ "status": { "phase": "Dancing" } }));
    let said = plans.patch_status("phases", &PatchParams::default(), &patch).await.unwrap_err().to_string();
    assert!(said.contains("\"Idle\", \"Staging\", \"Staged\""), "{said}");
    Ok(())
}

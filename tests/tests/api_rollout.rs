//! `spec.rollout` in a real API server: what it accepts and refuses, with which words, and what it fills in.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Has the API server judge an image object with this `rollout`, without keeping it.
async fn judge(client: &Client, rollout: &Value) -> Result<DynamicObject, kube::Error> {
    let gvk = GroupVersionKind::gvk("evenkeel.dev", "v1alpha1", "ManagedOSImage");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage", "metadata": { "name": "judged" },
        "spec": { "osImage": "registry.example/os:1", "rollout": rollout },
    });
    let params = PatchParams { dry_run: true, ..PatchParams::apply("tests") };
    api.patch("judged", &params.validation(ValidationDirective::Strict), &Patch::Apply(&object)).await
}

fn windows(window: &Value) -> Value {
    json!({ "windows": [window] })
}

fn cron(text: &str) -> Value {
    windows(&json!({ "cron": text, "durationSeconds": 60 }))
}

#[tokio::test]
async fn rollouts_that_are_accepted() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let whole = json!({
        "maxUnavailable": "10%", "topologyKey": "topology.kubernetes.io/zone", "maxUnavailablePerDomain": 2,
        "oneDomainAtATime": true, "order": "ControlPlaneFirst", "soakSeconds": 60,
        "steps": [
            { "nodes": 1, "soakSeconds": 3600 },
            { "nodes": "50%" },
            { "selector": { "matchLabels": { "canary": "yes" } }, "approval": true },
        ],
        "windows": [{ "cron": "0 2 * * SAT,SUN", "durationSeconds": 14400, "timeZone": "Europe/Berlin" }],
        "exclusions": [
            { "from": "2026-12-20T00:00:00Z", "until": "2027-01-04T00:00:00Z", "reason": "Christmas" },
            { "window": { "cron": "0 12 1 * *", "durationSeconds": 86400 } },
        ],
        "stagingWindows": [{ "cron": "*/30 20-23 * * *", "durationSeconds": 60, "timeZone": "America/Argentina/Ushuaia" }],
        "failurePolicy": {
            "onFirstFailure": "Continue", "maxFailures": "0%", "maxConsecutiveFailures": 2, "action": "RevertAll",
            "maxAttempts": 3, "backoffSeconds": 60, "denySeconds": 86400,
        },
    });
    for rollout in
        [json!({}), json!({ "topologyKey": "zone" }), json!({ "failurePolicy": { "maxFailures": 0 } }), whole]
    {
        if let Err(error) = judge(&client, &rollout).await {
            panic!("{rollout} was refused: {error}");
        }
    }
    let filled = judge(&client, &windows(&json!({ "cron": "0 2 * * *", "durationSeconds": 60 }))).await?;
    let rollout = &filled.data["spec"]["rollout"];
    assert_eq!(rollout["windows"][0]["timeZone"], "UTC");
    let policy = json!({
        "onFirstFailure": "Stop", "action": "Pause", "maxAttempts": 1, "backoffSeconds": 300,
    });
    assert_eq!(rollout["failurePolicy"], policy, "what is not said is shown");
    Ok(())
}

#[tokio::test]
async fn rollouts_that_are_refused() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let domain = "maxUnavailablePerDomain and oneDomainAtATime need topologyKey";
    let step = "a step has exactly one of nodes and selector";
    let exclusion = "an exclusion has either a window, or from and a later until";
    let (from, until) = ("2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z");
    let window = json!({ "cron": "0 2 * * *", "durationSeconds": 60 });
    let table = [
        (json!({ "maxUnavailablePerDomain": 1 }), domain),
        (json!({ "oneDomainAtATime": true }), domain),
        (
            json!({ "topologyKey": "zone", "maxUnavailablePerDomain": 0 }),
            "maxUnavailablePerDomain must be a number above 0",
        ),
        (
            json!({ "topologyKey": "zone", "maxUnavailablePerDomain": "0%" }),
            "maxUnavailablePerDomain must be a number above 0",
        ),
        (json!({ "topologyKey": "a b" }), "topologyKey"),
        (json!({ "steps": [{}] }), step),
        (json!({ "steps": [{ "nodes": 1, "selector": {} }] }), step),
        (json!({ "steps": [{ "nodes": 0 }] }), "nodes in body should be greater than or equal to 1"),
        (json!({ "steps": [{ "nodes": "101%" }] }), "nodes in body should match '^(100|[1-9][0-9]?)%$'"),
        (json!({ "steps": [{ "nodes": 1, "soakSeconds": -1 }] }), "soakSeconds"),
        (json!({ "steps": vec![json!({ "nodes": 1 }); 17] }), "must have at most 16 items"),
        (cron("0 2 * *"), "cron"),
        (cron("0 2 * * * *"), "cron"),
        (cron("@daily"), "cron"),
        (windows(&json!({ "cron": "0 2 * * *" })), "durationSeconds"),
        (windows(&json!({ "cron": "0 2 * * *", "durationSeconds": 59 })), "greater than or equal to 60"),
        (
            windows(&json!({ "cron": "0 2 * * *", "durationSeconds": 604_801 })),
            "less than or equal to 604800",
        ),
        (
            windows(&json!({ "cron": "0 2 * * *", "durationSeconds": 60, "timeZone": "Mars/Olympus" })),
            "timeZone",
        ),
        (windows(&json!({ "cron": "0 2 * * *", "durationSeconds": 60, "timeZone": "+02:00" })), "timeZone"),
        (json!({ "exclusions": [{}] }), exclusion),
        (json!({ "exclusions": [{ "from": until, "until": from }] }), exclusion),
        (json!({ "exclusions": [{ "from": from }] }), exclusion),
        (json!({ "exclusions": [{ "from": from, "until": until, "window": window }] }), exclusion),
        (json!({ "exclusions": [{ "from": "tomorrow", "until": until }] }), "date-time"),
        (json!({ "failurePolicy": { "maxFailures": -1 } }), "maxFailures must be a number from 0"),
        (json!({ "failurePolicy": { "maxFailures": "half" } }), "maxFailures must be a number from 0"),
        (json!({ "failurePolicy": { "maxConsecutiveFailures": 0 } }), "greater than or equal to 1"),
        (json!({ "failurePolicy": { "maxAttempts": 0 } }), "greater than or equal to 1"),
        (json!({ "failurePolicy": { "backoffSeconds": 86_401 } }), "less than or equal to 86400"),
        (json!({ "failurePolicy": { "action": "Panic" } }), "Unsupported value: \"Panic\""),
        (json!({ "failurePolicy": { "onFirstFailure": "Ask" } }), "Unsupported value: \"Ask\""),
    ];
    for (rollout, words) in table {
        match judge(&client, &rollout).await {
            Ok(_) => panic!("{rollout} was accepted, and should be refused with `{words}`"),
            Err(said) => assert!(said.to_string().contains(words), "{rollout}: `{words}` is not in: {said}"),
        }
    }
    Ok(())
}

//! What the API server accepts and refuses of the rules for a node's turn: drain, gates, hooks.

use anyhow::Result;
use evenkeel_crds::ManagedOSImage;
use evenkeel_tests::cluster::Cluster;
use kube::{
    Api,
    api::{Patch, PatchParams, ValidationDirective},
};
use serde_json::{Value, json};

/// Has the API server judge a spec without keeping it: `None`, or what it says.
async fn judge(field: &str, value: &Value) -> Result<Option<String>> {
    let images: Api<ManagedOSImage> = Api::all(Cluster::shared().await?.client().await?);
    let params = PatchParams { dry_run: true, ..PatchParams::apply("tests") };
    let params = params.validation(ValidationDirective::Strict);
    let mut spec = json!({ "osImage": "registry.example/os:1" });
    spec[field] = value.clone();
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage", "metadata": { "name": "judged" }, "spec": spec,
    });
    let answer = images.patch("judged", &params, &Patch::Apply(&object)).await;
    Ok(answer.err().map(|error| error.to_string()))
}

async fn judge_all(field: &str, good: &[Value], bad: &[(Value, &str)]) -> Result<()> {
    for value in good {
        let said = judge(field, value).await?;
        assert!(said.is_none(), "{field}: {value} was refused: {}", said.unwrap_or_default());
    }
    for (value, words) in bad {
        match judge(field, value).await? {
            None => panic!("{field}: {value} was accepted, and should be refused with `{words}`"),
            Some(said) => assert!(said.contains(words), "{field}: {value}: `{words}` is not in: {said}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn drains() -> Result<()> {
    let whole = json!({
        "enabled": true, "dryRun": false, "gracePeriod": 0, "timeoutSeconds": 60, "onTimeout": "Force", "force": true,
        "deleteEmptydirData": false, "ignoreDaemonSets": false, "skipWaitForDeleteTimeout": 60, "order": "ByPriority",
        "podSelector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["db"] }] },
        "waitForVolumes": false, "preferNoSchedule": true,
        "taint": { "key": "example.com/on-trial", "value": "yes", "effect": "PreferNoSchedule" },
    });
    let bad = [
        (json!({ "timeoutSeconds": 0 }), "greater than or equal to 1"),
        (json!({ "timeoutSeconds": 90_000 }), "less than or equal to 86400"),
        (json!({ "gracePeriod": -1 }), "greater than or equal to 0"),
        (json!({ "skipWaitForDeleteTimeout": -1 }), "greater than or equal to 0"),
        (json!({ "onTimeout": "Panic" }), "\"Retry\", \"UncordonAndFail\", \"Force\""),
        (json!({ "order": "Random" }), "\"AllAtOnce\", \"ByPriority\""),
        (json!({ "dryRun": "yes" }), "expected boolean"),
        (json!({ "podSelector": { "matchExpressions": [{ "key": "a" }] } }), "operator: Required value"),
        (json!({ "taint": {} }), "spec.drain.taint.key: Required value"),
        (json!({ "taint": { "key": "a b" } }), "spec.drain.taint.key in body should match"),
        (json!({ "taint": { "key": "a", "value": "a b" } }), "spec.drain.taint.value in body should match"),
        (json!({ "taint": { "key": "a", "effect": "NoExecute" } }), "\"NoSchedule\", \"PreferNoSchedule\""),
        (json!({ "disableEviction": true }), "field not declared in schema"),
    ];
    judge_all("drain", &[json!({}), whole], &bad).await
}

/// A gate with what is good about it, and one thing more.
fn gate(kind: &str, of_kind: Value, more: Value) -> Value {
    let Value::Object(mut gate) = more else { panic!("{more} is no object") };
    gate.insert("name".to_owned(), json!("g"));
    gate.insert(kind.to_owned(), of_kind);
    Value::Array(vec![Value::Object(gate)])
}

fn cel() -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "expression": "true" })
}

fn with(mut value: Value, key: &str, more: Value) -> Value {
    value[key] = more;
    value
}

fn good_gates() -> Vec<Value> {
    let job = json!({ "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "anything": 1 } } });
    let workload = json!({ "kind": "DaemonSet", "namespace": "kube-system", "selector": { "matchLabels": { "a": "b" } } });
    let prometheus =
        json!({ "url": "http://[fd00::1]:9090/select/0/", "query": "up == 0", "expect": "Empty" });
    vec![
        gate("cel", cel(), json!({})),
        gate(
            "cel",
            with(with(cel(), "name", json!("n")), "namespace", json!("s")),
            json!({ "when": ["Before", "During"] }),
        ),
        gate("workload", workload, json!({ "timeoutSeconds": 1, "intervalSeconds": 3600, "threshold": 100 })),
        gate("prometheus", prometheus, json!({ "onError": "Ignore" })),
        gate("annotation", json!({ "request": "a.example/ask", "answer": "a.example/ok" }), json!({})),
        gate("job", job, json!({})),
        gate("nodeCondition", json!({ "type": "Ready", "status": "True" }), json!({ "when": ["Before"] })),
    ]
}

#[tokio::test]
async fn gates() -> Result<()> {
    let one = "a gate is exactly one of nodeCondition, cel, workload, prometheus, annotation and job";
    let workload = |more: Value| {
        let mut of = json!({ "kind": "Deployment", "namespace": "web" });
        of.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gate("workload", of, json!({}))
    };
    let prometheus = |url: &str| gate("prometheus", json!({ "url": url, "query": "up" }), json!({}));
    let annotation = |request: &str, answer: &str| {
        gate("annotation", json!({ "request": request, "answer": answer }), json!({}))
    };
    let bad = [
        (json!([{ "name": "g" }]), one),
        (gate("cel", cel(), json!({ "nodeCondition": { "type": "Ready", "status": "True" } })), one),
        (gate("cel", cel(), json!({ "when": [] })), "should have at least 1 items"),
        (gate("cel", cel(), json!({ "when": ["Later"] })), "\"Before\", \"During\", \"After\""),
        (gate("cel", cel(), json!({ "when": ["After", "After"] })), "duplicate"),
        (gate("cel", cel(), json!({ "timeoutSeconds": 0 })), "greater than or equal to 1"),
        (gate("cel", cel(), json!({ "intervalSeconds": 0 })), "greater than or equal to 1"),
        (gate("cel", cel(), json!({ "threshold": 0 })), "greater than or equal to 1"),
        (gate("cel", cel(), json!({ "onError": "Panic" })), "\"Block\", \"Ignore\""),
        (gate("cel", with(cel(), "expression", json!("")), json!({})), "at least 1 chars long"),
        (
            gate("cel", with(cel(), "expression", json!("x".repeat(2049))), json!({})),
            "may not be more than 2048",
        ),
        (gate("cel", json!({ "kind": "K", "expression": "true" }), json!({})), "apiVersion: Required value"),
        (
            gate("cel", with(with(cel(), "name", json!("n")), "selector", json!({})), json!({})),
            "objects are named or selected: set one of name and selector",
        ),
        (workload(json!({})), "workloads are named or selected: set one of name and selector"),
        (workload(json!({ "name": "a", "selector": {} })), "workloads are named or selected"),
        (workload(json!({ "name": "a", "kind": "Pod" })), "\"Deployment\", \"StatefulSet\", \"DaemonSet\""),
        (prometheus("prometheus:9090"), "url in body should match"),
        (prometheus("http://me:secret@prometheus"), "url in body should match"),
        (prometheus("http://prometheus?query=up"), "url in body should match"),
        (annotation("a.example/ask", "a.example/ask"), "request and answer are two annotations"),
        (annotation("ask", "a.example/ok"), "request in body should match"),
        (gate("job", json!({ "template": {} }), json!({})), "template.spec: Required value"),
    ];
    judge_all("healthGates", &good_gates(), &bad).await
}

#[tokio::test]
async fn hooks() -> Result<()> {
    let hook = |more: Value| {
        let mut hook =
            json!({ "name": "lb", "when": "BeforeCordon", "template": { "spec": { "template": {} } } });
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([hook])
    };
    let late = "nothing can be reverted any more after AfterCommit and AfterRevert";
    let bad = [
        (hook(json!({ "name": "" })), "at least 1 chars long"),
        (hook(json!({ "name": "LB" })), "name in body should match"),
        (hook(json!({ "name": "x".repeat(31) })), "may not be more than 30"),
        (hook(json!({ "when": "Sometimes" })), "\"BeforeCordon\""),
        (hook(json!({ "timeoutSeconds": 0 })), "greater than or equal to 1"),
        (hook(json!({ "onFailure": "Panic" })), "\"Block\", \"Ignore\", \"Revert\""),
        (hook(json!({ "when": "AfterCommit", "onFailure": "Revert" })), late),
        (hook(json!({ "when": "AfterRevert", "onFailure": "Revert" })), late),
        (hook(json!({ "template": {} })), "template.spec: Required value"),
        (hook(json!({ "template": { "spec": 3 } })), "expected map"),
        (json!([{ "name": "a" }]), "when: Required value"),
        (json!([hook(json!({}))[0], hook(json!({}))[0]]), "duplicate"),
    ];
    judge_all(
        "hooks",
        &[hook(json!({ "when": "AfterReboot", "onFailure": "Revert", "timeoutSeconds": 5 }))],
        &bad,
    )
    .await
}

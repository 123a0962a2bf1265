//! The rules for a node's turn: drain, gates, hooks.

use anyhow::Result;
use serde_json::{Value, json};

use crate::accepted;

fn image(field: &str, value: &Value) -> Value {
    json!({ "osImage": "registry.example/os:1", field: value })
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
    accepted("ManagedOSImage", &[json!({}), whole].map(|drain| image("drain", &drain))).await
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
    let workload =
        json!({ "kind": "DaemonSet", "namespace": "system", "selector": { "matchLabels": { "a": "b" } } });
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
    let specs: Vec<Value> = good_gates().into_iter().map(|gates| image("healthGates", &gates)).collect();
    accepted("ManagedOSImage", &specs).await
}

#[tokio::test]
async fn hooks() -> Result<()> {
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "template": {} } });
    let hook = json!({
        "name": "lb", "when": "AfterReboot", "onFailure": "Revert", "timeoutSeconds": 5, "template": template,
    });
    accepted("ManagedOSImage", &[image("hooks", &json!([hook]))]).await
}

//! What must be true of the cluster before, while and after a node is updated, and what happens when it is not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, ensure};
use evenkeel_crds::node_plan::{Phase, RollbackCause};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    pods::{Runner, job_on},
    rights::{self, NAMESPACE},
    watch::World,
};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Node};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const ROLLOUT: Duration = Duration::from_mins(4);

fn says(fleet: &Fleet, words: &[&str]) -> bool {
    let said = fleet.watch.world().summary("os");
    words.iter().all(|word| said.contains(word))
}

async fn until_says(fleet: &Fleet, words: &[&str]) -> Result<()> {
    fleet.until(&format!("the summary says {words:?}"), ROLLOUT, |_| says(fleet, words)).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expression_over_any_kind_holds_the_first_node_until_it_is_true() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let gate = json!({
        "name": "storage", "when": ["Before"], "intervalSeconds": 1, "threshold": 2,
        "cel": {
            "apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "storage",
            "expression": "object.data.health == 'OK' && node.startsWith('node-')",
        },
    });
    fleet.want("os", &second.tagged, json!({ "healthGates": [gate] })).await?;
    until_says(&fleet, &["gate storage is not met since", "aggregate-to-gates"]).await?;
    rights::let_gates_read(&fleet.cluster, "", "configmaps").await?;
    until_says(&fleet, &["there is no v1 ConfigMap default/storage"]).await?;
    let kubectl = async |arguments: &[&str]| fleet.cluster.kubectl(arguments).await;
    kubectl(&["create", "configmap", "storage", "--from-literal=other=x"]).await?;
    until_says(&fleet, &["health", "has(object.a.b)"]).await?;
    kubectl(&["patch", "configmap", "storage", "-p", r#"{"data":{"health":"REBALANCING"}}"#]).await?;
    until_says(&fleet, &["it does not hold for storage"]).await?;
    let world = fleet.watch.world();
    assert!(world.serves("node-1") && world.plans["node-1"].spec.disruption.is_none());
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1);
    kubectl(&["patch", "configmap", "storage", "-p", r#"{"data":{"health":"OK"}}"#]).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_does_not_come_back_takes_the_node_back() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let deployments: Api<Deployment> = Api::default_namespaced(fleet.client.clone());
    let labels = json!({ "app": "ingress" });
    let deployment = json!({
        "metadata": { "name": "ingress" },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                // There is no such node, and so no pod of it ever runs.
                "spec": { "nodeName": "elsewhere", "containers": [{ "name": "one", "image": "none" }] },
            },
        },
    });
    fleet.create(&deployments, deployment).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let gate = json!({
        "name": "ingress", "intervalSeconds": 1, "timeoutSeconds": 20,
        "workload": { "kind": "Deployment", "namespace": "default", "name": "ingress" },
    });
    fleet.want("os", &second.tagged, json!({ "healthGates": [gate] })).await?;
    until_says(&fleet, &["gate ingress is not met since", "Deployment default/ingress"]).await?;
    let back = |world: &World| world.phase("node-1") == Phase::RolledBack && world.serves("node-1");
    let world = fleet.until("node-1 is back", ROLLOUT, back).await?;
    let rolled_back = world.status("node-1").and_then(|status| status.rolled_back.clone());
    let rolled_back = rolled_back.expect("a node that is back says why");
    assert_eq!(rolled_back.cause, RollbackCause::ClusterGate, "{}", rolled_back.message);
    assert!(rolled_back.message.contains("gate ingress"), "{}", rolled_back.message);
    let (.., why) = world.condition("os", "Stalled").unwrap_or_default();
    fleet
        .until("the rollout is stopped", ROLLOUT, |world| {
            world.condition("os", "Stalled").is_some_and(|(status, ..)| status == "True")
        })
        .await?;
    assert!(fleet.cordoned().await?.is_empty(), "{why}");
    Ok(())
}

/// Answers every query with as many series as the number says, in the form that Prometheus documents.
async fn answer_queries(listener: TcpListener, series: Arc<Mutex<usize>>, queries: Arc<Mutex<Vec<String>>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut request = vec![0; 8192];
        let length = stream.read(&mut request).await.unwrap_or_default();
        let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
        queries.lock().unwrap().push(line);
        let one = json!({ "metric": { "alertname": "DiskFull" }, "value": [1_800_000_000, "1"] });
        let result = vec![one; *series.lock().unwrap()];
        let body =
            json!({ "status": "success", "data": { "resultType": "vector", "result": result } }).to_string();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_finds_alerts_holds_the_reboot_and_one_that_nobody_answers_may_be_ignored() -> Result<()>
{
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (series, queries) = (Arc::new(Mutex::new(2)), Arc::new(Mutex::new(Vec::new())));
    let server = tokio::spawn(answer_queries(listener, Arc::clone(&series), Arc::clone(&queries)));
    let nobody = evenkeel_e2e::process::Port::free()?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let alerts = json!({
        "name": "alerts", "when": ["During"], "intervalSeconds": 1,
        "prometheus": { "url": url, "query": "ALERTS{node=\"$(NODE)\"}", "expect": "Empty" },
    });
    let ignored = json!({
        "name": "away", "when": ["Before", "After"], "intervalSeconds": 1, "onError": "Ignore",
        "prometheus": { "url": format!("http://127.0.0.1:{}", nobody.number()), "query": "up" },
    });
    fleet.want("os", &second.tagged, json!({ "healthGates": [alerts, ignored] })).await?;
    until_says(&fleet, &["gate alerts is not met since", "2 series", "DiskFull"]).await?;
    assert_eq!(fleet.cordoned().await?, ["node-1"], "it is drained by then");
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1);
    *series.lock().unwrap() = 0;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    let asked = queries.lock().unwrap().clone();
    assert!(
        asked.iter().all(|line| line.contains("/api/v1/query?query=ALERTS%7Bnode%3D%22node-1%22%7D")),
        "{asked:?}"
    );
    server.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_is_asked_by_annotation_and_a_job_has_to_succeed() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let failing = Arc::new(Mutex::new(vec!["After".to_owned()]));
    let runner = Runner::start(&fleet.client, &failing);
    let second = fleet.publish(&OsImage::good("2")).await?;
    let (ask, answer) = ("storage.example/ask", "storage.example/may-leave");
    let handshake = json!({
        "name": "storage", "when": ["Before"], "intervalSeconds": 1,
        "annotation": { "request": ask, "answer": answer },
    });
    let smoke =
        json!({ "name": "smoke test", "intervalSeconds": 1, "job": { "template": job_on("node-1") } });
    fleet.want("os", &second.tagged, json!({ "healthGates": [handshake, smoke] })).await?;
    until_says(&fleet, &["gate storage is not met since", answer]).await?;
    let nodes: Api<Node> = Api::all(fleet.client.clone());
    let set = async |value: &str| {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { answer: value } } }));
        nodes.patch("node-1", &PatchParams::default(), &patch).await
    };
    set("it rebalances, 20 % to go").await?;
    until_says(&fleet, &["20 % to go"]).await?;
    let asked = nodes.get("node-1").await?.annotations()[ask].clone();
    set(&asked).await?;
    until_says(&fleet, &["gate smoke test is not met since"]).await?;
    wait::until(ROLLOUT, async || {
        let ran = runner.ran().len();
        ensure!(ran >= 2, "a Job that failed is run again: {ran}");
        Ok(())
    })
    .await?;
    failing.lock().unwrap().clear();
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    wait::until(ROLLOUT, async || {
        let node = nodes.get("node-1").await?;
        ensure!(!node.annotations().contains_key(ask), "the question is still there");
        let jobs =
            Api::<Job>::namespaced(fleet.client.clone(), NAMESPACE).list(&ListParams::default()).await?;
        ensure!(
            jobs.items.is_empty(),
            "{:?}",
            jobs.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await?;
    assert!(
        runner.ran().iter().all(|(step, node)| step == "After" && node == "node-1"),
        "{:?}",
        runner.ran()
    );
    Ok(())
}

//! What the accounts of agents and operator may do in the cluster: every verb tried on every thing that matters, with
//! real tokens, against a real API server. What is not in a row's list must be forbidden.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::{NodePlan, NodePlanSpec, node_plan::Phase};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    cluster::Cluster,
    rights::{self, NAMESPACE},
};
use http::{Method, Request, StatusCode};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// What can be asked of a part of an object.
const PART_VERBS: [&str; 4] = ["get", "create", "update", "patch"];
const PLANS: &str = "/apis/evenkeel.dev/v1alpha1/nodeplans";
const READ: &[&str] = &["get", "list", "watch"];
/// The policy is enforced, and roles hold, a moment after they were made.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// One row: a place, an object in it, a part of the object, and the verbs that are allowed.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// What an agent on `inside` may do, all of it.
const AGENT: [Row; 28] = [
    (PLANS, "inside", "", READ),
    (PLANS, "inside", "status", &["patch"]),
    (PLANS, "outside", "", READ),
    (PLANS, "outside", "status", &[]),
    ("/apis/evenkeel.dev/v1alpha1/managedosimages", "os", "", &[]),
    ("/apis/evenkeel.dev/v1alpha1/managedosimages", "os", "status", &[]),
    ("/apis/evenkeel.dev/v1alpha1/managedosversions", "v1", "", &[]),
    ("/apis/evenkeel.dev/v1alpha1/managedosversionchannels", "stable", "", &[]),
    ("/api/v1/nodes", "inside", "", &[]),
    ("/api/v1/nodes", "inside", "status", &[]),
    ("/api/v1/nodes", "outside", "", &[]),
    ("/api/v1/nodes", "inside", "proxy", &[]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "", &[]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "eviction", &[]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "exec", &[]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "log", &[]),
    ("/api/v1/namespaces/evenkeel-system/secrets", "any", "", &[]),
    ("/api/v1/namespaces/kube-system/secrets", "any", "", &[]),
    ("/api/v1/namespaces/evenkeel-system/configmaps", "any", "", &[]),
    ("/api/v1/namespaces/evenkeel-system/serviceaccounts", "evenkeel-agent", "token", &[]),
    ("/api/v1/namespaces/default/events", "any", "", &[]),
    ("/apis/events.k8s.io/v1/namespaces/default/events", "any", "", &[]),
    ("/apis/coordination.k8s.io/v1/namespaces/evenkeel-system/leases", "evenkeel-operator", "", &[]),
    ("/apis/batch/v1/namespaces/evenkeel-system/jobs", "any", "", &[]),
    ("/apis/apps/v1/namespaces/evenkeel-system/daemonsets", "evenkeel-agent", "", &[]),
    ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "evenkeel-agent", "", &[]),
    ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "evenkeel-agent-own-plan", "", &[]),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "nodeplans.evenkeel.dev", "", &[]),
];

/// What the operator may do, all of it.
const OPERATOR: [Row; 27] = [
    (PLANS, "inside", "", &["get", "list", "watch", "create", "patch", "delete"]),
    (PLANS, "inside", "status", &[]),
    ("/apis/evenkeel.dev/v1alpha1/managedosimages", "os", "", &["get", "list", "watch", "patch"]),
    ("/apis/evenkeel.dev/v1alpha1/managedosimages", "os", "status", &["get", "patch"]),
    (
        "/apis/evenkeel.dev/v1alpha1/managedosversions",
        "v1",
        "",
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    ("/apis/evenkeel.dev/v1alpha1/managedosversionchannels", "stable", "", READ),
    ("/apis/evenkeel.dev/v1alpha1/managedosversionchannels", "stable", "status", &["get", "patch"]),
    ("/api/v1/nodes", "inside", "", &["get", "list", "watch", "patch"]),
    ("/api/v1/nodes", "inside", "status", &[]),
    ("/api/v1/nodes", "inside", "proxy", &[]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "", &["get", "list"]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "eviction", &["create"]),
    ("/api/v1/namespaces/evenkeel-system/pods", "agent-of-inside", "exec", &[]),
    ("/api/v1/namespaces/evenkeel-system/secrets", "any", "", &[]),
    ("/api/v1/namespaces/evenkeel-system/configmaps", "any", "", &[]),
    ("/api/v1/namespaces/evenkeel-system/serviceaccounts", "evenkeel-agent", "token", &[]),
    ("/api/v1/namespaces/default/persistentvolumeclaims", "any", "", &["get"]),
    ("/apis/storage.k8s.io/v1/volumeattachments", "any", "", READ),
    ("/apis/events.k8s.io/v1/namespaces/default/events", "any", "", &["create", "patch"]),
    (
        "/apis/coordination.k8s.io/v1/namespaces/evenkeel-system/leases",
        "evenkeel-operator",
        "",
        &["get", "create", "update"],
    ),
    ("/apis/coordination.k8s.io/v1/namespaces/evenkeel-system/leases", "other", "", &["create"]),
    ("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", "evenkeel-operator", "", &[]),
    (
        "/apis/batch/v1/namespaces/evenkeel-system/jobs",
        "any",
        "",
        &["get", "list", "watch", "create", "delete"],
    ),
    ("/apis/batch/v1/namespaces/default/jobs", "any", "", &[]),
    ("/apis/apps/v1/namespaces/default/deployments", "any", "", &["get", "list"]),
    ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "evenkeel-operator", "", &[]),
    ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "evenkeel-agent-own-plan", "", &[]),
];

/// A cluster with the chart's rights, the nodes `inside` and `outside` with a plan each, and an agent's pod on
/// `inside`.
async fn fenced() -> Result<&'static Cluster> {
    static READY: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::shared().await?;
    READY
        .get_or_try_init(async || {
            rights::apply(cluster).await?;
            let client = cluster.client().await?;
            for name in ["inside", "outside"] {
                node(&client, name).await?;
            }
            let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
            let pod = json!({
                "metadata": { "name": "agent-of-inside" },
                "spec": {
                    "nodeName": "inside", "serviceAccountName": rights::account(&client, "agent").await?,
                    "containers": [{ "name": "agent", "image": "agent" }],
                },
            });
            pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            settle(cluster, &client).await
        })
        .await?;
    Ok(cluster)
}

async fn node(client: &Client, name: &str) -> Result<()> {
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    Api::all(client.clone()).create(&PostParams::default(), &node).await?;
    let plan = NodePlan::new(name, NodePlanSpec::default());
    Api::all(client.clone()).create(&PostParams::default(), &plan).await?;
    Ok(())
}

/// Waits until the policy is enforced.
async fn settle(cluster: &Cluster, client: &Client) -> Result<()> {
    let agent = agent_in_a_pod(cluster, client).await?;
    wait::until(SETTLE_LIMIT, async || {
        let status = ask(&agent, "patch", &(PLANS, "outside", "status", &[])).await?;
        ensure!(status == StatusCode::FORBIDDEN, "an agent may write the status of another's plan: {status}");
        Ok(())
    })
    .await
}

async fn agent_in_a_pod(cluster: &Cluster, client: &Client) -> Result<Client> {
    let account = rights::account(client, "agent").await?;
    cluster.plane.client_for(&rights::pod_token(client, &account, "agent-of-inside").await?).await
}

/// Asks as a dry run; what the API server answers.
async fn ask(client: &Client, verb: &str, row: &Row) -> Result<StatusCode> {
    let (place, name, part, _) = row;
    let of_all =
        ["list", "watch", "deletecollection"].contains(&verb) || (verb == "create" && part.is_empty());
    let mut path = if of_all { (*place).to_owned() } else { format!("{place}/{name}") };
    if !part.is_empty() {
        write!(path, "/{part}")?;
    }
    let (method, query) = match verb {
        "watch" => (Method::GET, "watch=true&timeoutSeconds=1"),
        "get" | "list" => (Method::GET, "limit=1"),
        "create" => (Method::POST, "dryRun=All"),
        "update" => (Method::PUT, "dryRun=All"),
        "patch" => (Method::PATCH, "dryRun=All"),
        _ => (Method::DELETE, "dryRun=All"),
    };
    let kind = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
    // Who may patch gets as far as the admission policy, and there an agent's report must be one.
    let body: Value = if verb == "patch" { json!({ "status": { "phase": "Idle" } }) } else { json!({}) };
    let body = if method == Method::GET { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(format!("{path}?{query}"));
    let request = request.header("content-type", kind).body(body.into())?;
    Ok(client.send(request).await?.status())
}

/// Tries every verb on every row; what is otherwise than the rows say.
async fn try_all(client: &Client, rows: &[Row]) -> Result<()> {
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for row in rows {
        let (place, name, part, allowed) = row;
        let verbs = if part.is_empty() { &VERBS[..] } else { &PART_VERBS[..] };
        for verb in verbs {
            let status = ask(client, verb, row).await?;
            tried += 1;
            let may = status != StatusCode::FORBIDDEN && status != StatusCode::UNAUTHORIZED;
            if may != allowed.contains(verb) {
                wrong.push(format!("{verb} {place}/{name} {part}: {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried} are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// The same rows for somebody whose node is not known: whatever was allowed but to read is forbidden.
fn without_status() -> Vec<Row> {
    AGENT
        .map(|(place, name, part, allowed)| (place, name, part, if part.is_empty() { allowed } else { &[] }))
        .to_vec()
}

#[tokio::test]
async fn an_agent_in_its_pod_may_report_for_its_own_node_and_nothing_else() -> Result<()> {
    let cluster = fenced().await?;
    let client = cluster.client().await?;
    let agent = agent_in_a_pod(cluster, &client).await?;
    try_all(&agent, &AGENT).await?;
    let request = Request::patch(format!("{PLANS}/inside/status"))
        .header("content-type", "application/merge-patch+json");
    let report = json!({ "status": { "phase": "Staging" } }).to_string();
    agent.request_text(request.body(report.into_bytes())?).await?;
    let kept: NodePlan = Api::all(client).get("inside").await?;
    assert_eq!(kept.status.context("a status was written")?.phase, Phase::Staging);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_node_is_as_good_as_one_of_a_pod_there() -> Result<()> {
    let cluster = fenced().await?;
    let client = cluster.client().await?;
    let account = rights::account(&client, "agent").await?;
    let agent = cluster.plane.client_for(&rights::token(&client, &account, Some("inside")).await?).await?;
    try_all(&agent, &AGENT).await
}

#[tokio::test]
async fn an_agent_whose_token_names_no_node_may_only_read_plans() -> Result<()> {
    let cluster = fenced().await?;
    let client = cluster.client().await?;
    let account = rights::account(&client, "agent").await?;
    let agent = cluster.plane.client_for(&rights::token(&client, &account, None).await?).await?;
    try_all(&agent, &without_status()).await
}

#[tokio::test]
async fn a_token_ends_with_the_node_that_it_is_bound_to() -> Result<()> {
    let cluster = fenced().await?;
    let client = cluster.client().await?;
    node(&client, "short-lived").await?;
    let account = rights::account(&client, "agent").await?;
    let agent =
        cluster.plane.client_for(&rights::token(&client, &account, Some("short-lived")).await?).await?;
    let row = (PLANS, "short-lived", "status", READ);
    assert_eq!(ask(&agent, "patch", &row).await?, StatusCode::OK);
    Api::<Node>::all(client).delete("short-lived", &DeleteParams::default()).await?;
    wait::until(SETTLE_LIMIT, async || {
        let status = ask(&agent, "patch", &row).await?;
        ensure!(status == StatusCode::UNAUTHORIZED, "the token is good still: {status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_refusal_says_whose_report_was_refused() -> Result<()> {
    let cluster = fenced().await?;
    let agent = agent_in_a_pod(cluster, &cluster.client().await?).await?;
    let request = Request::patch(format!("{PLANS}/outside/status"))
        .header("content-type", "application/merge-patch+json");
    let report = json!({ "status": { "phase": "Idle" } }).to_string();
    let said = agent.request_text(request.body(report.into_bytes())?).await.unwrap_err().to_string();
    let words =
        "the agent of node \"inside\" may report on the NodePlan of its own node only, not on \"outside\"";
    assert!(said.contains(words), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_fence_is_around_agents_only() -> Result<()> {
    let administrator = fenced().await?.client().await?;
    assert_eq!(ask(&administrator, "patch", &(PLANS, "outside", "status", &[])).await?, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn the_operator_may_do_what_it_must_and_no_more() -> Result<()> {
    let cluster = fenced().await?;
    let client = cluster.client().await?;
    let account = rights::account(&client, "operator").await?;
    let operator = cluster.plane.client_for(&rights::token(&client, &account, None).await?).await?;
    try_all(&operator, &OPERATOR).await
}

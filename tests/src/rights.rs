//! Operator and agents with the rights that the chart gives them, and no others.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::json;

use crate::{cluster::Cluster, root};

/// Namespace of operator and agents.
pub const NAMESPACE: &str = "evenkeel-system";
/// An hour: longer than any test.
const TOKEN_SECONDS: i64 = 3600;
/// What of the chart says who may do what; the rest is for a cluster with kubelets.
const KINDS: [&str; 7] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Applies the chart's accounts, roles and admission policy.
pub async fn apply(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let space: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::<Namespace>::all(client).create(&PostParams::default(), &space).await?;
    apply_with(cluster, &[]).await
}

/// Applies them with values for the chart.
pub async fn apply_with(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let chart = root().join("charts/evenkeel").display().to_string();
    let arguments = ["template", "evenkeel", &chart, "--namespace", NAMESPACE, "--kube-version", "1.36.0"];
    let arguments: Vec<&str> = arguments.into_iter().chain(values.iter().copied()).collect();
    let rendered = cluster.helm(&arguments).await.context("render the chart")?;
    let documents: Vec<&str> = rendered.split("\n---\n").filter(|document| is_of(document, &KINDS)).collect();
    ensure!(documents.len() >= KINDS.len(), "the chart has {} documents on rights", documents.len());
    cluster.kubectl_with(&["apply", "-f", "-"], &documents.join("\n---\n")).await?;
    Ok(())
}

/// Gives the gates the right to read a kind, as a user does.
pub async fn let_gates_read(cluster: &Cluster, group: &str, resource: &str) -> Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": format!("gates-read-{resource}"),
            "labels": { "rbac.evenkeel.dev/aggregate-to-gates": "true" },
        },
        "rules": [{ "apiGroups": [group], "resources": [resource], "verbs": ["get", "list"] }],
    });
    cluster.kubectl_with(&["apply", "-f", "-"], &role.to_string()).await?;
    Ok(())
}

fn is_of(document: &str, kinds: &[&str]) -> bool {
    let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
    kind.is_some_and(|kind| kinds.contains(&kind.trim()))
}

/// The name of the one service account whose name has `part` in it.
pub async fn account(client: &Client, part: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let all = accounts.list(&ListParams::default()).await?;
    let mut names = all.items.into_iter().filter_map(|account| account.metadata.name);
    names
        .find(|name| name.contains(part))
        .with_context(|| format!("the chart has no service account for the {part}"))
}

/// A token of a service account; with a node, bound to that node's object.
pub async fn token(client: &Client, account: &str, node: Option<&str>) -> Result<String> {
    let bound = match node {
        None => None,
        Some(name) => {
            let node = Api::<Node>::all(client.clone()).get(name).await?;
            Some(bound("Node", &node))
        }
    };
    request(client, account, bound).await
}

/// A token as the kubelet gets it for a pod of [`NAMESPACE`]: bound to the pod, with the name of its node in it.
pub async fn pod_token(client: &Client, account: &str, pod: &str) -> Result<String> {
    let pod = Api::<Pod>::namespaced(client.clone(), NAMESPACE).get(pod).await?;
    request(client, account, Some(bound("Pod", &pod))).await
}

fn bound(kind: &str, object: &impl ResourceExt) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(object.name_any()),
        uid: object.uid(),
    }
}

async fn request(client: &Client, account: &str, bound: Option<BoundObjectReference>) -> Result<String> {
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        expiration_seconds: Some(TOKEN_SECONDS),
        bound_object_ref: bound,
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token request is answered with a token")?.token)
}

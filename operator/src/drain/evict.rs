//! Pods as the API server has them, and the evictions.

use evenkeel_crds::managed_os_image::Drain;
use evenkeel_operator_core::DrainSeen;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Preconditions},
};

use super::{OwnPod, progress, relieved, title, to_evict};
use crate::api::{ApiError, Clients, call};

/// Pods of one page. A node runs a few hundred at most.
const PAGE: u32 = 500;
/// Evictions in one round; the next round, seconds later, asks the rest.
const ROUND: usize = 50;

/// How far a node is drained. `refused` is what the last eviction that was refused said.
pub async fn look(
    client: &Client,
    node: &str,
    drain: &Drain,
    own: &OwnPod,
    refused: Option<String>,
) -> Result<DrainSeen, ApiError> {
    Ok(progress(&pods_on(client, node, own).await?, drain, refused))
}

/// Asks the pods of a node to leave. The answer says what keeps one of them, if something does.
pub async fn evict(
    clients: &Clients,
    node: &str,
    drain: &Drain,
    own: &OwnPod,
) -> Result<Option<String>, ApiError> {
    let pods = pods_on(&clients.main, node, own).await?;
    let mut refused = None;
    for pod in to_evict(&pods, drain).into_iter().take(ROUND) {
        if let Some(by) = ask(clients, pod, drain).await? {
            tracing::info!(node, pod = title(pod), by, "an eviction was refused");
            refused = Some(by);
        }
    }
    Ok(refused)
}

/// The pods of a node, but for our own as long as nobody would go on in its place.
async fn pods_on(client: &Client, node: &str, own: &OwnPod) -> Result<Vec<Pod>, ApiError> {
    let everywhere: Api<Pod> = Api::all(client.clone());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let mut pods = list(&everywhere, of_node, &format!("list the pods of node {node}")).await?;
    if let Some(at) = pods.iter().position(|pod| own.is(pod)) {
        let siblings: Api<Pod> = Api::namespaced(client.clone(), &own.namespace);
        let what = format!("list the pods of namespace {}", own.namespace);
        let siblings = list(&siblings, ListParams::default(), &what).await?;
        if !relieved(&pods[at], &siblings) {
            pods.remove(at);
        }
    }
    Ok(pods)
}

async fn list(api: &Api<Pod>, params: ListParams, what: &str) -> Result<Vec<Pod>, ApiError> {
    let mut params = params.limit(PAGE);
    let mut pods = Vec::new();
    loop {
        let page = call(what, api.list(&params)).await?;
        pods.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

/// One eviction; the answer says what keeps the pod, if something does.
async fn ask(clients: &Clients, pod: &Pod, drain: &Drain) -> Result<Option<String>, ApiError> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(clients.evictions.clone(), &namespace);
    let options = DeleteParams {
        grace_period_seconds: drain.grace_period.and_then(|seconds| u32::try_from(seconds).ok()),
        // The pod that was looked at, not one of the same name that came after it.
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let params = EvictParams { delete_options: Some(options), ..EvictParams::default() };
    let what = format!("evict pod {}", title(pod));
    match call(what, api.evict(&pod.name_any(), &params)).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_stale() => Ok(None),
        Err(error) if error.code() == Some(429) => Ok(Some(keeper(&error, pod))),
        Err(error) => Err(error),
    }
}

/// What keeps a pod, as the refusal of its eviction tells it: the disruption budget is named in its causes.
fn keeper(error: &ApiError, pod: &Pod) -> String {
    let said = match error {
        ApiError::Failed { source, .. } => match source.as_ref() {
            kube::Error::Api(status) => status
                .details
                .as_ref()
                .and_then(|details| details.causes.iter().find(|cause| cause.reason == "DisruptionBudget"))
                .map_or_else(|| status.message.clone(), |cause| cause.message.clone()),
            _ => String::new(),
        },
        _ => String::new(),
    };
    format!("pod {}: {said}", title(pod))
}

//! Pods as the API server has them, and the evictions.

use evenkeel_operator_core::DrainSeen;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, PostParams, Preconditions},
};

use super::{Fate, OwnPod, Rules, relieved, title, volumes};
use crate::{
    api::{ApiError, Clients, call, with_causes},
    context::Context,
};

/// Pods of one page. A node runs a few hundred at most.
const PAGE: u32 = 500;
/// Evictions in one round; the next round, seconds later, asks the rest.
const ROUND: usize = 50;

/// How far a node is drained. `refused` is what the last eviction that was refused said.
pub async fn look(
    context: &Context,
    node: &str,
    rules: &Rules<'_>,
    refused: Option<String>,
) -> Result<DrainSeen, ApiError> {
    let pods = pods_on(&context.clients.main, node, &context.own_pod).await?;
    let seen = rules.progress(&pods, refused);
    if seen != DrainSeen::Done || !rules.drain.wait_for_volumes {
        return Ok(seen);
    }
    let attached = volumes::attached(context, node, &pods, rules).await?;
    Ok(attached.map_or(seen, |by| DrainSeen::Remaining { pods: 0, blocked_by: Some(by) }))
}

/// Asks the pods of a node to leave; those that may not are deleted if `by_force`. The answer says what keeps one of them,
/// if something does.
pub async fn evict(
    context: &Context,
    node: &str,
    rules: &Rules<'_>,
    by_force: bool,
) -> Result<Option<String>, ApiError> {
    let pods = pods_on(&context.clients.main, node, &context.own_pod).await?;
    let mut refused = None;
    for pod in rules.to_evict(&pods).into_iter().take(ROUND) {
        let Some(by) = ask(&context.clients, pod, rules, false).await? else { continue };
        if by_force {
            tracing::warn!(node, pod = title(pod), by, "the drain is overdue, and the pod is deleted");
            refused = delete(&context.clients, pod, rules).await?.or(refused);
        } else {
            tracing::info!(node, pod = title(pod), by, "an eviction was refused");
            refused = Some(by);
        }
    }
    Ok(refused)
}

/// Asks whether the pods of a node could leave, and asks none to do so: what keeps each that may not.
pub async fn dry_run(context: &Context, node: &str, rules: &Rules<'_>) -> Result<Vec<String>, ApiError> {
    let pods = pods_on(&context.clients.main, node, &context.own_pod).await?;
    let mut kept = Vec::new();
    for pod in &pods {
        match rules.fate(pod) {
            Fate::Refused(why) => kept.push(why),
            Fate::Leaves => kept.extend(ask(&context.clients, pod, rules, true).await?),
            Fate::Stays | Fate::Leaving => {}
        }
    }
    Ok(kept)
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

/// How a pod is deleted: the one that was looked at, not one of the same name that came after it.
fn delete_options(pod: &Pod, rules: &Rules<'_>, dry_run: bool) -> DeleteParams {
    DeleteParams {
        dry_run,
        grace_period_seconds: rules.drain.grace_period.and_then(|seconds| u32::try_from(seconds).ok()),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    }
}

/// One eviction; the answer says what keeps the pod, if something does.
async fn ask(
    clients: &Clients,
    pod: &Pod,
    rules: &Rules<'_>,
    dry_run: bool,
) -> Result<Option<String>, ApiError> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(clients.evictions.clone(), &namespace);
    let params = EvictParams {
        delete_options: Some(delete_options(pod, rules, dry_run)),
        // The API server wants it said in both places.
        post_options: PostParams { dry_run, ..PostParams::default() },
    };
    let what = format!("evict pod {}", title(pod));
    match call(what, api.evict(&pod.name_any(), &params)).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_stale() => Ok(None),
        Err(error) if error.code() == Some(429) => Ok(Some(keeper(&error, pod))),
        Err(error) => refusal(error).map(Some),
    }
}

/// Deletes a pod; the answer says that we may not, if so.
async fn delete(clients: &Clients, pod: &Pod, rules: &Rules<'_>) -> Result<Option<String>, ApiError> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(clients.main.clone(), &namespace);
    let what = format!("delete pod {}", title(pod));
    match call(what, api.delete(&pod.name_any(), &delete_options(pod, rules, false))).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_stale() => Ok(None),
        Err(error) if is_without_right(&error) => Ok(Some(format!(
            "pod {}: the operator may not delete pods (the chart's operator.forceDrain gives it the right)",
            title(pod)
        ))),
        Err(error) => refusal(error).map(Some),
    }
}

/// What the API server says about a pod that it keeps, whatever the reason: it does not evict one with two disruption
/// budgets at all, and an admission webhook may forbid it. That is of this pod, and keeps no other from being asked. An API
/// server that is away or does not know us says nothing about a pod.
fn refusal(error: ApiError) -> Result<String, ApiError> {
    match error.code() {
        None | Some(401) => Err(error),
        Some(_) => Ok(with_causes(&error)),
    }
}

/// Whether a deletion was refused because of our rights, and not by an admission webhook, which gives the same code.
fn is_without_right(error: &ApiError) -> bool {
    error.code() == Some(403) && with_causes(error).contains("cannot delete")
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

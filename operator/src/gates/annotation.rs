//! Questions to somebody else, by annotations of the Node.

use evenkeel_crds::{ManagedOSImage, health_gate::AnnotationGate, names::OPERATOR_FIELD_MANAGER};
use evenkeel_operator_core::{Report, Snapshot};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Question, Verdict};
use crate::{
    api::{ApiError, call},
    context::Context,
    jobs::short_hash,
};

/// Asks, and looks for the answer.
pub async fn judge(
    context: &Context,
    gate: &AnnotationGate,
    question: &Question,
) -> Result<Verdict, ApiError> {
    let what = format!("get node {}", question.node);
    let Some(node) = context.seen.nodes.get(&question.node) else { return Err(ApiError::NotFound { what }) };
    let value = value(question);
    let annotations = node.annotations();
    if annotations.get(&gate.answer) == Some(&value) {
        return Ok(Verdict::Met);
    }
    if annotations.get(&gate.request) != Some(&value) {
        write(context, &question.node, &gate.request, Some(&value)).await?;
    }
    let said = annotations.get(&gate.answer).filter(|said| !said.is_empty());
    Ok(Verdict::NotMet(match said {
        None => format!("nobody has set the annotation {} to {value}", gate.answer),
        Some(said) => format!("the annotation {} says: {said}", gate.answer),
    }))
}

/// What stands for this turn, at this step: an answer to another one is none.
fn value(question: &Question) -> String {
    let hash = short_hash(&format!("{:?} {}", question.when, question.turn));
    format!("{:?}-{hash}", question.when).to_lowercase()
}

/// Takes back questions to which no answer is needed any more.
pub async fn tidy(
    context: &Context,
    image: &ManagedOSImage,
    snapshot: &Snapshot,
    report: &Report,
) -> Result<(), ApiError> {
    let gates = image.spec.health_gates.iter().filter_map(|gate| gate.annotation.as_ref());
    let requests: Vec<&str> = gates.map(|gate| gate.request.as_str()).collect();
    if requests.is_empty() {
        return Ok(());
    }
    for (name, seen) in &snapshot.nodes {
        let asked = seen.disruption().is_some() || report.asks.contains(name) || waits(report, name);
        let Some(node) = context.seen.nodes.get(name).filter(|_| !asked) else { continue };
        for request in requests.iter().filter(|request| node.annotations().contains_key(**request)) {
            write(context, name, request, None).await?;
        }
    }
    Ok(())
}

/// Whether a node is held back, so that it will be asked again.
fn waits(report: &Report, name: &str) -> bool {
    use evenkeel_operator_core::{NodeState, report::Hold};
    matches!(
        report.nodes.get(name),
        Some(NodeState::WaitsToStart(Hold::Departure(_) | Hold::Asking | Hold::Budget { .. }))
    )
}

async fn write(context: &Context, node: &str, key: &str, value: Option<&str>) -> Result<(), ApiError> {
    let patch = json!({ "metadata": { "annotations": { key: value } } });
    let api: Api<Node> = Api::all(context.clients.main.clone());
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let what = format!("write the annotation {key} of node {node}");
    let written = call(what, api.patch(node, &params, &Patch::Merge(&patch))).await?;
    context.seen.nodes.wrote(written);
    Ok(())
}

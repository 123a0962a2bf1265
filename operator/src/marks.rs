//! What the operator writes on a Node: its cordon, and the taints that go with it.

use evenkeel_crds::{
    drain::TrialEffect,
    names::{CORDONED_BY, OPERATOR_FIELD_MANAGER, OUTDATED, RESET, TRIAL_TAINT},
    node_plan::Wipe,
};
use evenkeel_operator_core::{Policy, wishes};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, call},
    context::Context,
};

/// Cordons a node in an image object's name. The owner, the cordon and the taint are one write.
pub async fn cordon(context: &Context, name: &str, policy: &Policy) -> Result<(), ApiError> {
    write(context, &format!("cordon node {name}"), name, |node| cordoned(node, policy)).await
}

/// Lifts such a cordon, and takes away the taints.
pub async fn uncordon(context: &Context, name: &str) -> Result<(), ApiError> {
    write(context, &format!("uncordon node {name}"), name, uncordoned).await
}

/// Whether somebody wants that still, as the API server has it: what was seen of the Node may be older than its plan.
pub async fn check_wish(context: &Context, name: &str, wipe: Wipe) -> Result<(), ApiError> {
    let what = format!("read the annotation {RESET} of node {name}");
    let api: Api<Node> = Api::all(context.clients.main.clone());
    let node = call(what.clone(), api.get(name)).await?;
    let wanted = node.annotations().get(RESET).and_then(|text| wishes::wipe(text));
    if wanted == Some(wipe) { Ok(()) } else { Err(ApiError::Conflict { what }) }
}

/// Takes back that somebody wants the machine to begin anew.
pub async fn forget_reset(context: &Context, name: &str) -> Result<(), ApiError> {
    let what = format!("remove the annotation {RESET} of node {name}");
    write(context, &what, name, |_| json!({ "metadata": { "annotations": { RESET: null } } })).await
}

/// Makes the scheduler prefer other nodes, or no longer so.
pub async fn avoid(context: &Context, name: &str, policy: &Policy, avoided: bool) -> Result<(), ApiError> {
    let what = format!("write the taint {OUTDATED} of node {name}");
    write(context, &what, name, |node| {
        let mut taints = without(node, &[OUTDATED]);
        if avoided {
            taints.push(outdated(&policy.uid));
        }
        json!({ "spec": { "taints": taints } })
    })
    .await
}

/// Whether an image object made the scheduler prefer other nodes.
pub fn is_avoided(node: &Node, uid: &str) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == OUTDATED && taint.value.as_deref() == Some(owner(uid)))
}

/// What stands for an image object in the value of a taint, which its name may be too long for.
fn owner(uid: &str) -> &str {
    uid.get(..8).unwrap_or(uid)
}

fn outdated(uid: &str) -> Taint {
    let value = Some(owner(uid).to_owned());
    Taint { key: OUTDATED.to_owned(), value, effect: "PreferNoSchedule".to_owned(), time_added: None }
}

fn cordoned(node: &Node, policy: &Policy) -> Value {
    let mut patch = json!({
        "metadata": { "annotations": { CORDONED_BY: policy.name } },
        "spec": { "unschedulable": true },
    });
    if let Some(taint) = &policy.drain.taint {
        let mut taints = without(node, &[&taint.key]);
        let effect = match taint.effect {
            TrialEffect::NoSchedule => "NoSchedule",
            TrialEffect::PreferNoSchedule => "PreferNoSchedule",
        };
        taints.push(Taint {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: effect.to_owned(),
            time_added: None,
        });
        patch["metadata"]["annotations"][TRIAL_TAINT] = json!(taint.key);
        patch["spec"]["taints"] = json!(taints);
    }
    patch
}

fn uncordoned(node: &Node) -> Value {
    let trial = node.annotations().get(TRIAL_TAINT).map_or(OUTDATED, String::as_str);
    json!({
        "metadata": { "annotations": { CORDONED_BY: null, TRIAL_TAINT: null } },
        "spec": { "unschedulable": null, "taints": without(node, &[OUTDATED, trial]) },
    })
}

fn without(node: &Node, keys: &[&str]) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| !keys.contains(&taint.key.as_str())).cloned().collect()
}

/// Writes on the version of the node that was seen: a list of taints is replaced as a whole.
async fn write(
    context: &Context,
    what: &str,
    name: &str,
    patch: impl FnOnce(&Node) -> Value,
) -> Result<(), ApiError> {
    let Some(node) = context.seen.nodes.get(name) else {
        return Err(ApiError::NotFound { what: what.to_owned() });
    };
    let mut patch = patch(&node);
    patch["metadata"]["uid"] = json!(node.uid());
    patch["metadata"]["resourceVersion"] = json!(node.resource_version());
    let api: Api<Node> = Api::all(context.clients.main.clone());
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let written = call(what, api.patch(name, &params, &Patch::Merge(&patch))).await;
    let written = written.inspect_err(|error| {
        if matches!(error, ApiError::NotFound { .. }) {
            context.seen.nodes.deleted(name, node.uid());
        }
    })?;
    context.seen.nodes.wrote(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::ManagedOSImageSpec;

    fn policy(taint: &Value) -> Policy {
        let spec: ManagedOSImageSpec =
            serde_json::from_value(json!({ "drain": { "taint": taint } })).unwrap();
        Policy::new("os", "0a1b2c3d-uid", &spec, None).unwrap()
    }

    fn node(annotations: &Value, taints: &Value) -> Node {
        let value =
            json!({ "metadata": { "name": "n1", "annotations": annotations }, "spec": { "taints": taints } });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_cordon_brings_its_taint_and_takes_it_away_whatever_is_asked_for_by_then() {
        let foreign = json!([{ "key": "gpu", "effect": "NoSchedule" }]);
        let patch = cordoned(&node(&json!({}), &foreign), &policy(&json!({ "key": "example.com/trial" })));
        assert_eq!(patch["metadata"]["annotations"][TRIAL_TAINT], "example.com/trial");
        let keys: Vec<_> =
            patch["spec"]["taints"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
        assert_eq!(keys, ["gpu", "example.com/trial"]);
        let tainted = node(&patch["metadata"]["annotations"], &patch["spec"]["taints"]);
        let lifted = uncordoned(&tainted);
        assert_eq!(lifted["spec"]["taints"], foreign);
        assert!(lifted["metadata"]["annotations"][TRIAL_TAINT].is_null());
        assert!(lifted["spec"]["unschedulable"].is_null());
    }

    #[test]
    fn a_cordon_without_a_taint_leaves_the_taints_alone() {
        let patch = cordoned(&node(&json!({}), &json!([])), &policy(&Value::Null));
        assert!(patch["spec"].get("taints").is_none(), "{patch}");
    }

    #[test]
    fn the_mark_of_another_image_object_is_not_ours() {
        let tainted = node(&json!({}), &json!([outdated("0a1b2c3d-uid")]));
        assert!(is_avoided(&tainted, "0a1b2c3d-uid"));
        assert!(!is_avoided(&tainted, "99999999-uid"));
    }
}

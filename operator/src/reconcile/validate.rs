//! From what was asked for to a policy that the planner can follow, or why not.

use std::sync::Arc;

use evenkeel_crds::{ManagedOSImage, rollout::Rollout};
use evenkeel_operator_core::{Policy, wishes::Wishes};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    claim::selector,
    drain::Rules,
    gates::check_expression,
    jobs::{self, Of, What},
    status::Problem,
};

/// Validates an image object; `resolved` is its image by digest, if it is known, `unreadable` are plans that this
/// version cannot read.
pub fn validate(
    image: &Arc<ManagedOSImage>,
    resolved: Option<&str>,
    unreadable: &[String],
) -> Result<Policy, Problem> {
    if let Some(plan) = unreadable.first() {
        return Err(Problem::lasting(
            "PlanUnreadable",
            format!(
                "{plan}. Nothing is done while it is there: correct it, or delete it with `kubectl delete nodeplan`"
            ),
        ));
    }
    let deleting = image.metadata.deletion_timestamp.is_some();
    let mut spec = image.spec.clone();
    if deleting {
        // Nothing is started any more: what is wrong here must not keep the nodes.
        spec.rollout = Rollout::default();
    } else if let Err(error) = selector(image) {
        return Err(Problem::lasting("InvalidSpec", format!("nodeSelector cannot be used: {error}")));
    }
    if !deleting {
        checked(image)?;
    }
    let uid = image.uid().unwrap_or_default();
    let mut policy = Policy::new(&image.name_any(), &uid, &spec, resolved)
        .map_err(|error| Problem::lasting("InvalidSpec", error.to_string()))?;
    policy.deleting = deleting;
    if let Some(status) = &image.status {
        policy.rejected.clone_from(&status.rejected);
        policy.denied.clone_from(&status.denied);
        policy.progress.clone_from(&status.rollout);
    }
    let wishes = wishes(image);
    (policy.run_now, policy.approved, policy.allowed) = (wishes.run_now, wishes.approved, wishes.allowed);
    Ok(policy)
}

/// What the definition of the API cannot check: selectors, expressions, the templates of Jobs.
fn checked(image: &Arc<ManagedOSImage>) -> Result<(), Problem> {
    let invalid = |what: String| Problem::lasting("InvalidSpec", what);
    if let Err(error) = Rules::new(&image.spec.drain, false, Timestamp::now()) {
        return Err(invalid(format!("drain.podSelector cannot be used: {error}")));
    }
    let of = |what, step| Of { image, node: "", turn: "", what, step, timeout_seconds: 1 };
    for gate in &image.spec.health_gates {
        let name = &gate.name;
        if let Some(Err(error)) = gate.cel.as_ref().map(|cel| check_expression(&cel.expression)) {
            return Err(invalid(format!("healthGates {name}: the expression cannot be used: {error}")));
        }
        let job = gate.job.as_ref().map(|job| jobs::build(&of(What::Gate(name), ""), &job.template, ""));
        if let Some(Err(error)) = job {
            return Err(invalid(format!("healthGates {name}: {error}")));
        }
    }
    for hook in &image.spec.hooks {
        let what = What::Hook(&hook.name);
        if let Err(error) = jobs::build(&of(what, hook.when.name()), &hook.template, "") {
            return Err(invalid(format!("hooks {}: {error}", hook.name)));
        }
    }
    Ok(())
}

/// What the object's annotations ask for.
pub fn wishes(image: &ManagedOSImage) -> Wishes {
    Wishes::read(|name| image.annotations().get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(spec: &serde_json::Value, deleting: bool) -> Arc<ManagedOSImage> {
        let stamp = deleting.then_some("2026-01-01T00:00:00Z");
        let value = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage",
            "metadata": { "name": "os", "uid": "0a1b2c3d-0000", "deletionTimestamp": stamp },
            "spec": spec,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn what_admission_lets_through_by_mistake_is_refused_with_its_name() {
        let table = [
            (
                json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near", "values": ["b"] }] } }),
                "nodeSelector",
            ),
            (json!({ "rollout": { "maxUnavailable": 0 } }), "maxUnavailable"),
            (
                json!({ "drain": { "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } } }),
                "drain.podSelector",
            ),
            (
                json!({ "healthGates": [{ "name": "ceph", "cel": { "apiVersion": "v1", "kind": "K", "expression": "a b" } }] }),
                "healthGates ceph",
            ),
            (
                json!({ "healthGates": [{ "name": "smoke", "job": { "template": { "spec": {} } } }] }),
                "healthGates smoke",
            ),
            (
                json!({ "hooks": [{ "name": "lb", "when": "AfterDrain", "template": { "spec": { "template": 3 } } }] }),
                "hooks lb",
            ),
            (json!({ "rollout": { "topologyKey": "zone", "maxUnavailablePerDomain": "0%" } }), "PerDomain"),
            (json!({ "rollout": { "steps": [{ "nodes": 1 }, { "nodes": "none" }] } }), "steps[1].nodes"),
            (json!({ "rollout": { "failurePolicy": { "maxFailures": -1 } } }), "maxFailures"),
            (
                json!({ "rollout": { "windows": [{ "cron": "0 0 31 2 *", "durationSeconds": 60 }] } }),
                "never comes",
            ),
            (
                json!({ "rollout": { "stagingWindows": [
                    { "cron": "0 0 * * *", "durationSeconds": 60, "timeZone": "Mars/Olympus" },
                ] } }),
                "stagingWindows: `Mars/Olympus`",
            ),
        ];
        for (spec, named) in table {
            let problem = validate(&image(&spec, false), None, &[]).unwrap_err();
            assert_eq!(problem.reason, "InvalidSpec");
            assert!(problem.message.contains(named), "{}", problem.message);
            assert!(validate(&image(&spec, true), None, &[]).unwrap().deleting, "a deletion goes on");
        }
    }

    #[test]
    fn a_plan_that_cannot_be_read_stops_everything() {
        let unreadable = ["NodePlan n1 cannot be read: unknown phase".to_owned()];
        let problem = validate(&image(&json!({}), false), None, &unreadable).unwrap_err();
        assert!(problem.message.contains("n1"), "{}", problem.message);
    }
}

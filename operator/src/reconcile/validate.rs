//! From what was asked for to a policy that the planner can follow, or why not.

use evenkeel_crds::ManagedOSImage;
use evenkeel_operator_core::Policy;
use kube::ResourceExt as _;

use crate::{claim::selector, status::Problem};

/// Validates an image object; `resolved` is its image by digest, if it is known, `unreadable` are plans that this
/// version cannot read.
pub fn validate(
    image: &ManagedOSImage,
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
        spec.rollout.max_unavailable = None;
    } else if let Err(error) = selector(image) {
        return Err(Problem::lasting("InvalidSpec", format!("nodeSelector cannot be used: {error}")));
    }
    let uid = image.uid().unwrap_or_default();
    let mut policy = Policy::new(&image.name_any(), &uid, &spec, resolved)
        .map_err(|error| Problem::lasting("InvalidSpec", error.to_string()))?;
    policy.deleting = deleting;
    policy.rejected = image.status.as_ref().and_then(|status| status.rejected.clone());
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(spec: &serde_json::Value, deleting: bool) -> ManagedOSImage {
        let stamp = deleting.then_some("2026-01-01T00:00:00Z");
        let value = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage",
            "metadata": { "name": "os", "uid": "0a1b2c3d-0000", "deletionTimestamp": stamp },
            "spec": spec,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_admission_lets_through_by_mistake_is_refused_with_its_name() {
        let table = [
            (
                json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near", "values": ["b"] }] } }),
                "nodeSelector",
            ),
            (json!({ "rollout": { "maxUnavailable": 0 } }), "maxUnavailable"),
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

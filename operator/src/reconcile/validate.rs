//! From what was asked for to a policy that the planner can follow, or why not.

use std::sync::Arc;

use evenkeel_crds::{
    ManagedOSImage, ManagedOSImageSpec,
    node_plan::RollbackCause,
    rollout::{OnFirstFailure, Pause, Rollout},
};
use evenkeel_operator_core::{Action, Decision, Policy, PolicyError, wishes::Wishes};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::{cloud_config, gather::Gathered};
use crate::{
    claim::selector,
    drain::Rules,
    gates::check_expression,
    jobs::{self, Of, What},
    status::Problem,
};

/// What can be followed of an image object, and what is wrong with it.
pub struct Followed {
    /// The parts that can be read. With a pause, if something is wrong: nothing is started then, and what was begun is
    /// finished.
    pub policy: Policy,
    /// What is wrong.
    pub problem: Option<Problem>,
    /// Whether a gate, a hook or a selector of pods is: nodes in their turn wait for it.
    blind: bool,
}

/// Validates an image object; `resolved` is its image by digest, if it is known, `unreadable` are plans that this
/// version cannot read.
pub fn validate(image: &Arc<ManagedOSImage>, resolved: Option<&str>, unreadable: &[String]) -> Followed {
    let deleting = image.metadata.deletion_timestamp.is_some();
    let (mut spec, mut wrong) = (image.spec.clone(), None);
    let mut blind = false;
    if deleting {
        // Nothing is started any more: what is wrong here must not keep the nodes.
        spec.rollout = Rollout::default();
    } else {
        wrong = checked(image).err();
        blind = wrong.is_some();
        let unselective = selector(image).err().map(|error| format!("nodeSelector cannot be used: {error}"));
        let config = image.spec.cloud_config.as_ref();
        let config = config.and_then(|config| cloud_config::check(config).err());
        wrong = unselective.or(config).or(wrong);
    }
    let mut policy = readable(image, spec, resolved, &mut wrong);
    policy.deleting = deleting;
    policy.created = image.metadata.creation_timestamp.as_ref().map(|time| time.0);
    policy.cloud_config = image.spec.cloud_config.as_ref().map(cloud_config::ordered);
    if let Some(status) = &image.status {
        policy.rejected.clone_from(&status.rejected);
        policy.denied.clone_from(&status.denied);
        policy.progress.clone_from(&status.rollout);
    }
    let wishes = wishes(image);
    (policy.run_now, policy.approved, policy.allowed) = (wishes.run_now, wishes.approved, wishes.allowed);
    let problem = match (unreadable.first(), wrong) {
        (Some(plan), _) => {
            pause(&mut policy, "an unreadable NodePlan");
            // The node that proved the image may be the one that cannot be read.
            policy.failure.on_first_failure = OnFirstFailure::Continue;
            Some(Problem::lasting("PlanUnreadable", unreadable_plan(plan)))
        }
        (None, Some(wrong)) => {
            pause(&mut policy, "an invalid spec");
            Some(Problem::lasting("InvalidSpec", wrong))
        }
        (None, None) => None,
    };
    Followed { policy, problem, blind }
}

fn pause(policy: &mut Policy, owner: &str) {
    policy.pauses.insert(0, Pause { owner: owner.to_owned(), reason: String::new(), until: None });
}

fn unreadable_plan(plan: &str) -> String {
    format!(
        "{plan}. Nothing is started while it is there, and nothing is done to its node: correct it, or delete it with \
         `kubectl delete nodeplan`"
    )
}

/// The policy without the parts of the spec that cannot be read; the first of them is told.
fn readable(
    image: &ManagedOSImage,
    mut spec: ManagedOSImageSpec,
    mut resolved: Option<&str>,
    wrong: &mut Option<String>,
) -> Policy {
    let (name, uid) = (image.name_any(), image.uid().unwrap_or_default());
    loop {
        let error = match Policy::new(&name, &uid, &spec, resolved) {
            Ok(policy) => return policy,
            Err(error) => error,
        };
        let rollout = &mut spec.rollout;
        match error {
            PolicyError::NotPinned(_) => resolved = None,
            PolicyError::MaxUnavailable(_) => rollout.max_unavailable = None,
            PolicyError::PerDomain(_) => rollout.max_unavailable_per_domain = None,
            PolicyError::Step(..) => rollout.steps.clear(),
            // How many it tolerates is not known: then none stops it.
            PolicyError::MaxFailures(_) => {
                rollout.failure_policy.max_failures = Some(IntOrString::String("100%".into()));
            }
            PolicyError::Schedule(..) => {
                (rollout.windows, rollout.exclusions) = Default::default();
                rollout.staging_windows.clear();
            }
        }
        wrong.get_or_insert(error.to_string());
    }
}

impl Followed {
    /// What is decided while something cannot be read. What a gate or a hook would order back then waits for somebody to
    /// correct it, until shortly before the node's own guard would go back; then it goes back, and the image is not blamed.
    pub fn restrain(&self, gathered: &Gathered, now: Timestamp, decision: &mut Decision) {
        if !gathered.unreadable.is_empty() {
            // By leaving out a node no step is over, no rollout finished, and no image object free to go.
            decision.report.progress.clone_from(&self.policy.progress);
            decision.report.released = false;
        }
        if !self.blind {
            return;
        }
        let reboot = &self.policy.reboot;
        let patience = reboot.commit_deadline_seconds - reboot.deadline_seconds;
        let report = &mut decision.report;
        decision.actions.retain_mut(|(name, action)| {
            let Some(node) = gathered.snapshot.nodes.get(name) else { return true };
            match action {
                Action::Revert { order, .. } if order.cause == RollbackCause::ClusterGate => {
                    order.cause = RollbackCause::User;
                    let deadline = node.disruption().and_then(|record| record.deadline);
                    let end = deadline.map(|deadline| deadline.0 + SignedDuration::from_secs(patience));
                    report.wake_at =
                        [report.wake_at, end.filter(|end| now < *end)].into_iter().flatten().min();
                    end.is_some_and(|end| now >= end)
                }
                // The soak time does not begin anew.
                Action::MarkHealthy(None) => !node.ready,
                _ => true,
            }
        });
    }
}

/// What the definition of the API cannot check: expressions, the templates of Jobs, which pods leave.
fn checked(image: &Arc<ManagedOSImage>) -> Result<(), String> {
    if let Err(error) = Rules::new(&image.spec.drain, false, Timestamp::now()) {
        return Err(format!("drain.podSelector cannot be used: {error}"));
    }
    let of = |what, step| Of { image, node: "", turn: "", what, step, timeout_seconds: 1 };
    for gate in &image.spec.health_gates {
        let name = &gate.name;
        if let Some(Err(error)) = gate.cel.as_ref().map(|cel| check_expression(&cel.expression)) {
            return Err(format!("healthGates {name}: the expression cannot be used: {error}"));
        }
        let job = gate.job.as_ref().map(|job| jobs::build(&of(What::Gate(name), ""), &job.template, ""));
        if let Some(Err(error)) = job {
            return Err(format!("healthGates {name}: {error}"));
        }
    }
    for hook in &image.spec.hooks {
        let what = What::Hook(&hook.name);
        if let Err(error) = jobs::build(&of(what, hook.when.name()), &hook.template, "") {
            return Err(format!("hooks {}: {error}", hook.name));
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
    use evenkeel_crds::node_plan::{NodePlanSpec, Revert};
    use evenkeel_operator_core::{NodeSeen, PlanSeen, Snapshot};
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
            let Followed { policy, problem, .. } = validate(&image(&spec, false), None, &[]);
            let problem = problem.unwrap();
            assert_eq!(problem.reason, "InvalidSpec");
            assert!(problem.message.contains(named), "{}", problem.message);
            assert_eq!(policy.pause(Timestamp::UNIX_EPOCH).unwrap().owner, "an invalid spec", "{named}");
            let deleted = validate(&image(&spec, true), None, &[]);
            assert!(deleted.policy.deleting && deleted.problem.is_none(), "a deletion goes on");
        }
    }

    #[test]
    fn what_can_be_read_is_followed_beside_what_cannot() {
        let spec = json!({ "rollout": {
            "soakSeconds": 90, "maxUnavailable": 3, "windows": [{ "cron": "0 25 * * *", "durationSeconds": 60 }],
            "failurePolicy": { "maxFailures": "many", "action": "RevertAll" },
        } });
        let Followed { policy, problem, .. } = validate(&image(&spec, false), None, &[]);
        assert!(problem.unwrap().message.contains("maxFailures"), "the first is told");
        assert_eq!((policy.soak, policy.max_unavailable.of(9)), (SignedDuration::from_secs(90), 3));
        assert_eq!(policy.tolerated(9), 9, "nobody said that the rollout shall stop");
        assert!(validate(&image(&json!({}), false), None, &[]).policy.pauses.is_empty());
    }

    #[test]
    fn a_plan_that_cannot_be_read_keeps_others_from_starting_and_is_named() {
        let unreadable = ["NodePlan n1 cannot be read: unknown phase".to_owned()];
        let Followed { policy, problem, .. } = validate(&image(&json!({}), false), None, &unreadable);
        let problem = problem.unwrap();
        assert!(problem.reason == "PlanUnreadable" && problem.message.contains("n1"), "{}", problem.message);
        assert!(policy.pause(Timestamp::UNIX_EPOCH).is_some());
    }

    /// A node on trial whose plan says that it may reboot until then.
    fn on_trial(until: Timestamp) -> Gathered {
        let record = json!({
            "since": "2026-01-01T00:00:00Z", "foundCordoned": false, "bootIdBefore": "b", "attempt": 1,
            "deadline": until,
        });
        let spec: NodePlanSpec = serde_json::from_value(json!({ "disruption": record })).unwrap();
        let plan = PlanSeen { spec: spec.into(), ..PlanSeen::default() };
        let node = NodeSeen { plan: Some(plan), ready: true, ..NodeSeen::default() };
        let snapshot = Snapshot { nodes: [("n1".to_owned(), node)].into(), ..Snapshot::default() };
        Gathered { snapshot, ..Gathered::default() }
    }

    #[test]
    fn what_cannot_be_read_orders_nobody_back_before_there_is_no_more_time_and_blames_no_image() {
        let until: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let at = |seconds| until + SignedDuration::from_secs(seconds);
        let decided = |spec: &serde_json::Value, now| {
            let order = Revert { cause: RollbackCause::ClusterGate, message: "gate ceph".into() };
            let revert = Action::Revert { order, at: now };
            let mut decision = Decision { actions: vec![("n1".into(), revert)], ..Decision::default() };
            validate(&image(spec, false), None, &[]).restrain(&on_trial(until), now, &mut decision);
            let cause = decision.actions.first().map(|(_, action)| match action {
                Action::Revert { order, .. } => order.cause,
                other => panic!("{other:?}"),
            });
            (cause, decision.report.wake_at)
        };
        let cel = |expression| {
            let cel = json!({ "apiVersion": "v1", "kind": "K", "expression": expression });
            json!({ "healthGates": [{ "name": "ceph", "cel": cel }] })
        };
        // It has 15 minutes to be Ready, and 30 to be kept.
        assert_eq!(decided(&cel("true"), at(0)), (Some(RollbackCause::ClusterGate), None));
        assert_eq!(decided(&cel("a b"), at(0)), (None, Some(at(900))));
        assert_eq!(decided(&cel("a b"), at(900)), (Some(RollbackCause::User), None));
        let cron = json!({ "rollout": { "windows": [{ "cron": "0 25 * * *", "durationSeconds": 60 }] } });
        assert_eq!(decided(&cron, at(0)).0, Some(RollbackCause::ClusterGate), "the gates can be read");
    }
}

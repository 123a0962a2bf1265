//! What people are told as it happens. Rendered from what changed; never where it is decided.

mod alike;
mod recorder;

use std::collections::BTreeMap;

use evenkeel_crds::{ManagedOSImageStatus, condition::ConditionStatus, node_plan::Phase};
use evenkeel_operator_core::{Action, NodeSeen, NodeState, report::Hold};
use kube::Resource;

use crate::{api::call, status::reason};

pub use alike::{Alike, of_many};
pub use recorder::Recorder;

/// Longest note of an event, in bytes: the API server's limit is 1 kB.
const NOTE_MAX: usize = 1000;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether somebody should look.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub note: String,
}

impl Told {
    fn normal(reason: &str, note: String) -> Self {
        Self { warning: false, reason: reason.to_owned(), note }
    }
    fn warning(reason: &str, note: String) -> Self {
        Self { warning: true, reason: reason.to_owned(), note }
    }
}

/// What an action on a node tells of this one alone: that it goes wrong, and how it ended, but for what [`Alike`] tells. It
/// is told before it is done: an operator that is killed in between says it twice, never not at all.
pub fn of_action(name: &str, node: &NodeSeen, action: &Action) -> Option<Told> {
    if Alike::of(node, action).is_some() {
        return None;
    }
    let plan = node.plan.as_ref();
    let image = plan.and_then(|plan| plan.spec.image.as_deref()).unwrap_or("its image");
    Some(match action {
        Action::BeginDisruption(record) if record.reset.is_some() => {
            Told::warning("NodeResetStarted", format!("the turn of {name} begins: its machine begins anew"))
        }
        Action::ForgetReset { failed: None } => {
            Told::normal("NodeReset", format!("the machine of {name} has begun anew"))
        }
        Action::ForgetReset { failed: Some(why) } => {
            Told::warning("NodeNotReset", format!("the machine of {name} has not begun anew: {why}"))
        }
        Action::BeginDisruption(record) if record.going_back => {
            Told::warning("NodeGoesBack", format!("the turn of {name} begins: it shall leave {image}"))
        }
        Action::Revert { order, .. } => Told::warning(
            "NodeReverting",
            format!("{name} is ordered back to its old slot: {}", order.message),
        ),
        Action::EndDisruption(_) => ended(name, node),
        _ => return None,
    })
}

fn ended(name: &str, node: &NodeSeen) -> Told {
    let status = node.plan.as_ref().map(|plan| (*plan.status).clone()).unwrap_or_default();
    match node.phase() {
        Phase::RolledBack => {
            let why = status.rolled_back.map_or_else(
                || "no cause was given".to_owned(),
                |back| format!("{:?}: {}", back.cause, back.message),
            );
            Told::warning("NodeRolledBack", format!("{name} runs its old slot again: {why}"))
        }
        Phase::Failed => {
            let why = status.error.map_or_else(|| "no reason was given".to_owned(), |error| error.message);
            Told::warning("NodeFailed", format!("{name} could not be updated: {why}"))
        }
        _ => Told::normal("NodeReleased", format!("the turn of {name} ended before its reboot")),
    }
}

/// What a change of the status tells.
pub fn of_status(before: &ManagedOSImageStatus, after: &ManagedOSImageStatus) -> Vec<Told> {
    let mut told = Vec::new();
    if let (true, Some(image)) = (before.image != after.image, &after.image) {
        let from = after.resolved_from.as_deref().unwrap_or_default();
        told.push(Told::normal("ImageResolved", format!("{from} is {image}")));
    }
    if let (true, Some(wish)) = (before.run_now != after.run_now, &after.run_now) {
        let note = format!("windows are ignored until {}, as {} wants it", wish.until.0, wish.by);
        told.push(Told::warning("RunNow", note));
    }
    let known = before
        .rollout
        .as_ref()
        .filter(|was| after.rollout.as_ref().is_some_and(|is| is.digest == was.digest));
    let known = known.map_or(0, |rollout| rollout.approvals.len());
    for approval in after.rollout.iter().flat_map(|rollout| rollout.approvals.iter().skip(known)) {
        told.push(Told::normal(
            "StepApproved",
            format!("step {} is approved by {}", approval.step, approval.by),
        ));
    }
    for denied in
        after.denied.iter().filter(|denied| !before.denied.iter().any(|was| was.digest == denied.digest))
    {
        told.push(Told::warning("ImageDenied", format!("{} is denied: {}", denied.digest, denied.cause)));
    }
    // That the registry is asked is no news; what it says is.
    let now = reason(after, "Ready");
    let changed = reason(before, "Ready") != now && now != Some("Resolving");
    if let Some(ready) = after.conditions.iter().find(|c| changed && c.r#type == "Ready") {
        let fine = ["RolloutInProgress", "RolloutFinished", "NoNodes", "Paused", "Deleting"];
        let warning = ready.status != ConditionStatus::True && !fine.contains(&ready.reason.as_str());
        told.push(Told { warning, reason: ready.reason.clone(), note: ready.message.clone() });
    }
    told
}

/// What changes of the nodes tell, beyond what was done to them.
pub fn of_nodes(before: &BTreeMap<String, NodeState>, after: &BTreeMap<String, NodeState>) -> Vec<Told> {
    let mut told = Vec::new();
    for (name, state) in after {
        let was = before.get(name);
        match state {
            NodeState::Retrying(why) if !matches!(was, Some(NodeState::Retrying(_))) => {
                told.push(Told::warning("NodeCannotStage", format!("{name} tries again: {why}")));
            }
            // A failure in a node's turn is told when the turn ends.
            NodeState::Failed(why)
                if !matches!(was, None | Some(NodeState::Failed(_) | NodeState::Finishing)) =>
            {
                told.push(Told::warning("NodeFailed", format!("{name} could not be updated: {why}")));
            }
            NodeState::Draining { overdue: true, blocked_by, .. }
                if !matches!(was, Some(NodeState::Draining { overdue: true, .. })) =>
            {
                let by = blocked_by.as_deref().unwrap_or("pods that take their time");
                told.push(Told::warning("DrainOverdue", format!("the drain of {name} takes too long: {by}")));
            }
            NodeState::WaitsToStart(Hold::Departure(by))
                if !matches!(was, Some(NodeState::WaitsToStart(Hold::Departure(_)))) =>
            {
                told.push(Told::warning("NodeHeldBack", format!("{name} may not leave service: {by}")));
            }
            NodeState::Halted(why) if !matches!(was, Some(NodeState::Halted(_))) => {
                told.push(Told::normal("NodeHalted", format!("{name} waits in its turn: {why}")));
            }
            NodeState::Halted(why)
                if why.contains(" failed: ")
                    && !matches!(was, Some(NodeState::Halted(was)) if was.contains(" failed: ")) =>
            {
                told.push(Told::warning("HookFailed", format!("{name} waits in its turn: {why}")));
            }
            NodeState::Lost(why) if !matches!(was, Some(NodeState::Lost(_))) => {
                told.push(Told::warning("NodeLost", format!("{name} is lost: {why}")));
            }
            NodeState::TriesAgain { why, at } if !matches!(was, Some(NodeState::TriesAgain { .. })) => {
                told.push(Told::warning("NodeTriesAgain", format!("{name} tries again at {at}: {why}")));
            }
            NodeState::Draining { blocked_by: Some(by), .. }
                if !matches!(was, Some(NodeState::Draining { blocked_by: Some(_), .. })) =>
            {
                told.push(Told::warning("DrainBlocked", format!("{name} cannot be drained: {by}")));
            }
            _ => {}
        }
    }
    told
}

/// Publishes. An event that cannot be written is logged, and nothing waits for it.
pub async fn publish<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, told: &[Told]) {
    for told in told {
        tracing::info!(reason = told.reason, "{}", told.note);
        let mut told = told.clone();
        if told.note.len() > NOTE_MAX {
            told.note.truncate(told.note.floor_char_boundary(NOTE_MAX - 4));
            told.note.push_str(" …");
        }
        let what = format!("write the event {}", told.reason);
        if let Err(error) = call(what, recorder.tell(&object.object_ref(&()), &told)).await {
            tracing::warn!(%error, "an event is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::{
        condition::{Condition, Time},
        node_plan::{LastTurn, NodePlanSpec, NodePlanStatus, RollbackCause, RolledBack, TurnOutcome},
    };
    use evenkeel_operator_core::PlanSeen;

    fn node(status: NodePlanStatus) -> NodeSeen {
        let spec = NodePlanSpec { plan_id: status.plan_id.clone(), ..NodePlanSpec::default() };
        NodeSeen {
            selected: true,
            ready: true,
            boot_id: "b".into(),
            plan: Some(PlanSeen { spec: spec.into(), status: status.into() }),
            ..NodeSeen::default()
        }
    }

    fn end() -> Action {
        let (since, until) = (Time(jiff::Timestamp::UNIX_EPOCH), Time(jiff::Timestamp::UNIX_EPOCH));
        Action::EndDisruption(LastTurn {
            plan_id: "p".into(),
            since,
            until,
            outcome: TurnOutcome::Updated,
            reboot_took_seconds: None,
        })
    }

    #[test]
    fn the_end_of_a_turn_tells_how_it_went_and_why() {
        let rolled_back = RolledBack {
            cause: RollbackCause::Bootloader,
            message: "three tries were used up".into(),
            at: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        let back = node(NodePlanStatus {
            plan_id: Some("p".into()),
            phase: Phase::RolledBack,
            rolled_back: Some(rolled_back),
            ..NodePlanStatus::default()
        });
        let told = of_action("n1", &back, &end()).unwrap();
        assert!(told.warning && told.reason == "NodeRolledBack", "{told:?}");
        assert!(told.note.contains("Bootloader: three tries"), "{told:?}");
        let kept = node(NodePlanStatus {
            plan_id: Some("p".into()),
            phase: Phase::Committed,
            ..NodePlanStatus::default()
        });
        assert_eq!(Alike::of(&kept, &end()), Some(Alike::Updated("its image".into())));
        assert_eq!(of_action("n1", &kept, &end()), None, "it is told with others");
        assert_eq!(Alike::of(&back, &end()), None, "each goes wrong in its own way");
        assert_eq!(of_action("n1", &kept, &Action::Cordon), None);
        let deadline = jiff::Timestamp::UNIX_EPOCH;
        assert_eq!(of_action("n1", &kept, &Action::ApproveReboot { deadline }), None, "on its way");
    }

    #[test]
    fn a_reason_is_told_once() {
        let with = |word: &str, status| ManagedOSImageStatus {
            conditions: vec![Condition {
                r#type: "Ready".into(),
                status,
                reason: word.into(),
                message: "m".into(),
                last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
                observed_generation: None,
            }],
            ..ManagedOSImageStatus::default()
        };
        let (none, away) =
            (ManagedOSImageStatus::default(), with("RegistryUnreachable", ConditionStatus::False));
        let told = of_status(&none, &away);
        assert!(told.len() == 1 && told[0].warning, "{told:?}");
        assert!(of_status(&away, &away).is_empty());
        let finished = with("RolloutFinished", ConditionStatus::True);
        assert!(!of_status(&away, &finished)[0].warning);
    }

    #[test]
    fn trouble_of_a_node_is_told_when_it_begins() {
        let states = |state: NodeState| BTreeMap::from([("n1".to_owned(), state)]);
        let staging = states(NodeState::Staging);
        let retrying = states(NodeState::Retrying("the registry is away".into()));
        let failed = states(NodeState::Failed("no kernel".into()));
        assert_eq!(of_nodes(&staging, &retrying)[0].reason, "NodeCannotStage");
        assert!(of_nodes(&retrying, &retrying).is_empty());
        assert_eq!(of_nodes(&retrying, &failed)[0].reason, "NodeFailed");
        assert!(of_nodes(&states(NodeState::Finishing), &failed).is_empty());
    }
}

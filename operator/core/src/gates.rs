//! What must be true of the cluster before, while and after a node is updated: facts that were gathered, and what they
//! mean for a node.

use evenkeel_crds::{
    condition::ConditionStatus,
    health_gate::{GateTime, HealthGate, NodeConditionGate},
    node_plan::{Disruption, Target},
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    policy::Policy,
    snapshot::{NodeSeen, PlanSeen},
};

/// What was found out about one gate for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSeen {
    /// The gate's name.
    pub name: String,
    /// For when it was asked.
    pub when: GateTime,
    /// Whether it is met, as often in a row as it must be.
    pub met: bool,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// Why it is not met, for people.
    pub why: String,
}

/// Whether a node may leave service, as far as that can be known before anything is done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Departure {
    /// Nobody has asked.
    #[default]
    NotAsked,
    /// It is being found out.
    Asking,
    /// It may.
    Free {
        /// When that was found out.
        at: Timestamp,
    },
    /// It may not.
    Held {
        /// Why, such as a `PodDisruptionBudget` or a gate by name.
        by: String,
        /// When it is worth asking again.
        again: Timestamp,
    },
}

/// How long it is believed that a node may leave. What is found out is used within a look or two.
const BELIEVED: SignedDuration = SignedDuration::from_secs(60);

/// Whether anything has to be found out before a node may leave service.
pub fn asks_before(policy: &Policy, node: &NodeSeen) -> bool {
    policy.drain.enabled && policy.drain.dry_run && !node.stays_in_service()
        || policy.gates.iter().any(|gate| gate.when.contains(&GateTime::Before))
}

/// For when the gates of a node in its turn are asked; absent while it is not the time for any.
pub fn time(node: &NodeSeen) -> Option<GateTime> {
    let PlanSeen { spec, .. } = node.plan.as_ref()?;
    if spec.disruption.as_ref()?.reset.is_some() {
        return spec.reset.is_none().then_some(GateTime::During);
    }
    match spec.target {
        None | Some(Target::Staged) => Some(GateTime::During),
        Some(Target::Booted) => Some(GateTime::After),
        Some(Target::Committed | Target::Reverted) => None,
    }
}

/// What a node is told that wants to leave service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Now,
    /// It has to be found out; when it was last found out, it might not for this reason.
    Ask(Option<String>),
    /// It may not for now.
    Held {
        /// Why.
        by: String,
        /// When it is asked again.
        again: Timestamp,
    },
}

/// Whether a node may leave service at `now`.
pub fn leave(policy: &Policy, node: &NodeSeen, now: Timestamp) -> Leave {
    if let Some(gate) = unmet_condition(policy, node, GateTime::Before) {
        let again = now + SignedDuration::from_secs(gate.interval_seconds);
        return Leave::Held { by: describe_condition(gate, node).unwrap_or_default(), again };
    }
    if !asks_before(policy, node) {
        return Leave::Now;
    }
    match &node.checks.departure {
        Departure::Free { at } if now.duration_since(*at) < BELIEVED => Leave::Now,
        Departure::Held { by, again } if now < *again => Leave::Held { by: by.clone(), again: *again },
        Departure::Held { by, .. } => Leave::Ask(Some(by.clone())),
        _ => Leave::Ask(None),
    }
}

/// Whether it was found out that a node may not leave service, and not yet that it may.
pub fn is_held(policy: &Policy, node: &NodeSeen, now: Timestamp) -> bool {
    matches!(leave(policy, node, now), Leave::Held { .. } | Leave::Ask(Some(_)))
}

/// A gate that a node in its turn does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// For people: which gate, since when, why.
    pub why: String,
    /// When its time is over; absent while it was not asked, as after the operator began anew: nothing is known of it then.
    pub until: Option<Timestamp>,
    /// When it is looked at again.
    pub again: Timestamp,
}

/// The first gate that is not met.
pub fn unmet(
    policy: &Policy,
    node: &NodeSeen,
    record: &Disruption,
    when: GateTime,
    now: Timestamp,
) -> Option<Unmet> {
    let of_this_time = policy.gates.iter().filter(|gate| gate.when.contains(&when));
    of_this_time.into_iter().find_map(|gate| {
        let seen = node.checks.gates.iter().find(|seen| seen.name == gate.name && seen.when == when);
        let known = gate.node_condition.is_some() || seen.is_some();
        let why = if gate.node_condition.is_some() {
            describe_condition(gate, node)?
        } else {
            describe(gate, seen)?
        };
        let until = known.then(|| until(policy, record, gate, when, now));
        Some(Unmet { why, until, again: now + SignedDuration::from_secs(gate.interval_seconds) })
    })
}

/// Seconds until gates of a node are looked at again; absent if there is nothing to look at.
pub fn interval(policy: &Policy, when: GateTime) -> Option<SignedDuration> {
    let asked = policy.gates.iter().filter(|gate| gate.when.contains(&when) && gate.node_condition.is_none());
    asked.map(|gate| SignedDuration::from_secs(gate.interval_seconds)).min()
}

/// When a gate's time is over: counted from the end of the drain, or from the approval to reboot, which are both written
/// down, so that a new operator counts no other time.
fn until(
    policy: &Policy,
    record: &Disruption,
    gate: &HealthGate,
    when: GateTime,
    now: Timestamp,
) -> Timestamp {
    let limit = policy.reboot.deadline_seconds;
    let own = gate.timeout_seconds;
    let from = match when {
        GateTime::After => {
            record.deadline.map_or(now, |deadline| deadline.0 - SignedDuration::from_secs(limit))
        }
        GateTime::Before | GateTime::During => record.drained_at.unwrap_or(record.since).0,
    };
    from + SignedDuration::from_secs(own.unwrap_or(limit))
}

fn describe(gate: &HealthGate, seen: Option<&GateSeen>) -> Option<String> {
    match seen {
        Some(seen) if seen.met => None,
        Some(seen) => Some(format!("gate {} is not met since {}: {}", gate.name, seen.since, seen.why)),
        None => Some(format!("gate {} is being looked at", gate.name)),
    }
}

fn unmet_condition<'a>(policy: &'a Policy, node: &NodeSeen, when: GateTime) -> Option<&'a HealthGate> {
    let of_this_time = policy.gates.iter().filter(|gate| gate.when.contains(&when));
    of_this_time.into_iter().find(|gate| describe_condition(gate, node).is_some())
}

/// Why the Node's condition that a gate asks for is not as it should be.
fn describe_condition(gate: &HealthGate, node: &NodeSeen) -> Option<String> {
    let NodeConditionGate { r#type, status } = gate.node_condition.as_ref()?;
    let wanted = match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    };
    let seen = node.conditions.get(r#type).map_or("absent", String::as_str);
    (seen != wanted).then(|| format!("gate {}: condition {type} is {seen}, not {wanted}", gate.name))
}

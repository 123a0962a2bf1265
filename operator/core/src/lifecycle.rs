//! Where a node is on its way out of service and back, in the words of Kubernetes' lifecycle conditions (KEP-5683), for
//! storage operators, autoscalers and people who know nothing of us.

use evenkeel_crds::node_plan::Target;

use crate::{policy::Policy, snapshot::NodeSeen};

/// What a node's lifecycle conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Nothing: it is in service as far as we are concerned.
    InService,
    /// It is being drained.
    Draining,
    /// It is out of service to be updated.
    Maintained {
        /// Whether it was drained for that.
        drained: bool,
    },
}

/// The condition types that Kubernetes knows, in the order of [`Lifecycle::says`].
pub const CONDITIONS: [&str; 3] = ["DrainInProgress", "Drained", "MaintenanceInProgress"];

impl Lifecycle {
    /// Which of [`CONDITIONS`] are true; the others are absent.
    pub fn says(self) -> [bool; CONDITIONS.len()] {
        match self {
            Self::InService => [false; CONDITIONS.len()],
            Self::Draining => [true, false, false],
            Self::Maintained { drained } => [false, drained, true],
        }
    }
}

/// What is true of a node that its image object has.
pub fn lifecycle(policy: &Policy, node: &NodeSeen) -> Lifecycle {
    let drains = policy.drain.enabled;
    let Some((plan, record)) = node.plan.as_ref().zip(node.disruption()) else { return Lifecycle::InService };
    if record.reset.is_some() {
        let left = record.drained_at.is_some() || plan.spec.reset.is_some();
        return match left {
            true => Lifecycle::Maintained { drained: drains },
            false if drains && node.unschedulable => Lifecycle::Draining,
            false => Lifecycle::InService,
        };
    }
    if record.live {
        return Lifecycle::InService;
    }
    match plan.spec.target {
        // A drain that was given up is undone by the same order as a trial that failed.
        Some(Target::Reverted) => Lifecycle::Maintained { drained: false },
        Some(Target::Booted | Target::Committed) => Lifecycle::Maintained { drained: drains },
        _ if record.drained_at.is_some() => Lifecycle::Maintained { drained: drains },
        _ if drains && node.unschedulable => Lifecycle::Draining,
        _ => Lifecycle::InService,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_crds::{ManagedOSImageSpec, condition::Time, node_plan::Disruption};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::snapshot::PlanSeen;

    fn policy(drain: bool) -> Policy {
        let spec: ManagedOSImageSpec =
            serde_json::from_value(json!({ "drain": { "enabled": drain } })).unwrap();
        Policy::new("os", "uid", &spec, None).unwrap()
    }

    fn node(in_turn: bool, cordoned: bool, target: Target) -> NodeSeen {
        let since = Time(Timestamp::UNIX_EPOCH);
        let record = Disruption {
            since,
            found_cordoned: false,
            boot_id_before: "b".into(),
            draining_since: None,
            drained_at: None,
            deadline: None,
            healthy_since: None,
            attempt: 1,
            going_back: false,
            live: false,
            reset: None,
        };
        let mut plan = PlanSeen::default();
        plan.spec.target = Some(target);
        plan.spec.disruption = in_turn.then_some(record);
        NodeSeen { plan: Some(plan), unschedulable: cordoned, ..NodeSeen::default() }
    }

    #[test]
    fn only_a_node_in_its_turn_is_anything_but_in_service() {
        let rows = [
            (true, node(false, false, Target::Staged), Lifecycle::InService),
            // Cordoned by a person, kept long ago.
            (true, node(false, true, Target::Committed), Lifecycle::InService),
            (true, NodeSeen::default(), Lifecycle::InService),
            (true, node(true, false, Target::Staged), Lifecycle::InService),
            (true, node(true, true, Target::Staged), Lifecycle::Draining),
            (true, node(true, true, Target::Booted), Lifecycle::Maintained { drained: true }),
            (true, node(true, true, Target::Reverted), Lifecycle::Maintained { drained: false }),
            (false, node(true, true, Target::Staged), Lifecycle::InService),
            (false, node(true, true, Target::Booted), Lifecycle::Maintained { drained: false }),
        ];
        for (drains, node, expected) in rows {
            assert_eq!(lifecycle(&policy(drains), &node), expected, "{drains} {node:?}");
        }
    }

    #[test]
    fn a_node_that_waits_for_its_reboot_is_drained() {
        let mut node = node(true, true, Target::Staged);
        node.plan.as_mut().unwrap().spec.disruption.as_mut().unwrap().drained_at =
            Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(lifecycle(&policy(true), &node).says(), [false, true, true]);
    }
}

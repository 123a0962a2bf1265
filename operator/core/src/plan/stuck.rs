//! Whether failed nodes keep all others from being started, so that a person has to say how it goes on.

use super::budget::Budget;
use crate::report::{Hold, NodeState, Report, StepState, StepWait};

/// The budget that failed nodes take whole, if nothing else is going on any more.
pub fn used_up(budget: &Budget, report: &Report) -> Option<String> {
    let mut waiting = report.nodes.values().filter_map(NodeState::hold).peekable();
    waiting.peek()?;
    if budget.is_used_up_by_failures() {
        return Some("maxUnavailable".to_owned());
    }
    if report.nodes.values().any(|state| state.hold().is_none() && !state.is_over()) {
        return None;
    }
    let mut domain = None;
    for hold in waiting {
        match hold {
            Hold::DomainBudget { domain: name, .. } | Hold::Domain(name) if budget.is_used_up_in(name) => {
                domain = Some(name);
            }
            // These let those go first that cannot.
            Hold::Unproven
            | Hold::OperatorsNode
            | Hold::Step(StepState { waits: StepWait::Nodes { .. }, .. }) => {}
            _ => return None,
        }
    }
    domain.map(|name| format!("maxUnavailablePerDomain in domain {name}"))
}

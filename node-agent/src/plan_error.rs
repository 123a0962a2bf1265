//! An error as the plan's status tells it.

use evenkeel_crds::node_plan::PlanError;

use crate::{causes::with_causes, printable::printable};

/// Characters of a message that the API takes.
const MESSAGE_MAX: usize = 2048;

/// The error with everything below it, in one line.
pub(crate) fn plan_error(reason: &str, retryable: bool, error: &anyhow::Error) -> PlanError {
    let message = printable(&with_causes(error), MESSAGE_MAX).chars().take(MESSAGE_MAX).collect();
    PlanError { reason: reason.to_owned(), message, retryable }
}

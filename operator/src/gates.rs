//! What must be true of the cluster before, while and after a node is updated: asked in the background, so that nobody who
//! is slow to answer keeps nodes on their way waiting.

mod annotation;
mod book;
mod cel;
mod departure;
mod job;
mod objects;
mod prometheus;
mod workload;

pub use annotation::tidy;
pub use book::{Book, Question};
pub use cel::check as check_expression;
pub use departure::{Asked, ask_departures};

use evenkeel_crds::health_gate::HealthGate;

use crate::{
    api::{ApiError, with_causes},
    context::Context,
};

/// What one look at a gate came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is met.
    Met,
    /// It is not, for this reason.
    NotMet(String),
    /// It cannot be found out, for this reason.
    Unknown(String),
}

impl From<ApiError> for Verdict {
    fn from(error: ApiError) -> Self {
        let hint = if error.code() == Some(403) {
            " (a ClusterRole with the label rbac.evenkeel.dev/aggregate-to-gates: \"true\" gives the right)"
        } else {
            ""
        };
        Self::Unknown(format!("{}{hint}", with_causes(&error)))
    }
}

/// Looks at a gate once.
async fn judge(context: &Context, question: &Question) -> Verdict {
    let HealthGate { cel, workload, prometheus, annotation, job, .. } = &question.gate;
    let node = question.node.as_str();
    if let Some(gate) = cel {
        cel::judge(context, gate, node).await.unwrap_or_else(Verdict::from)
    } else if let Some(gate) = workload {
        workload::judge(context, gate).await.unwrap_or_else(Verdict::from)
    } else if let Some(gate) = prometheus {
        prometheus::judge(gate, node).await
    } else if let Some(gate) = annotation {
        annotation::judge(context, gate, question).await.unwrap_or_else(Verdict::from)
    } else if let Some(gate) = job {
        job::judge(context, gate, question).await.unwrap_or_else(Verdict::from)
    } else {
        // The planner looks at the Node's conditions itself.
        Verdict::Met
    }
}

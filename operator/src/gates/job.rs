//! A Job that must succeed.

use evenkeel_crds::health_gate::JobGate;
use evenkeel_operator_core::hooks::JobSeen;

use super::{Question, Verdict};
use crate::{
    api::ApiError,
    context::Context,
    jobs::{self, Of},
};

/// Runs the Job, and looks how far it is. One that failed is deleted, so that the next look runs it again.
pub async fn judge(context: &Context, gate: &JobGate, question: &Question) -> Result<Verdict, ApiError> {
    let step = format!("{:?}", question.when);
    let timeout = question.gate.timeout_seconds.unwrap_or(question.image.spec.reboot.deadline_seconds);
    let of = Of {
        image: &question.image,
        node: &question.node,
        turn: &question.turn,
        what: jobs::What::Gate(&question.gate.name),
        step: &step,
        timeout_seconds: timeout,
    };
    if let Err(why) = jobs::build(&of, &gate.template, "") {
        // No error that passes, and so none that `onError` is asked about.
        return Ok(Verdict::NotMet(why));
    }
    let Some(job) = jobs::get(context, &of).await? else {
        return Ok(match jobs::run(context, &of, &gate.template).await? {
            Ok(()) => Verdict::NotMet(format!("Job {} was just made", of.name())),
            Err(why) => Verdict::Unknown(why),
        });
    };
    Ok(match jobs::seen(&job) {
        JobSeen::Succeeded => Verdict::Met,
        JobSeen::Running { since } => Verdict::NotMet(format!("Job {} runs since {since}", of.name())),
        JobSeen::Failed { why } => {
            jobs::delete(context, &job).await?;
            Verdict::NotMet(format!("{why}; it is run again"))
        }
    })
}

//! What actions are called in a story.

use evenkeel_operator_core::Action;

/// What an action is called in a story; those that only take note of something are left out.
pub fn said(action: &Action) -> Option<String> {
    Some(match action {
        Action::OrderStage { image, .. } => format!("stage {image}"),
        Action::BeginDisruption(record) if record.going_back => "begin the turn back".to_owned(),
        Action::BeginDisruption(record) if record.reset.is_some() => {
            "begin the turn to begin anew".to_owned()
        }
        Action::BeginDisruption(_) => "begin the turn".to_owned(),
        Action::Cordon => "cordon".to_owned(),
        Action::ForceOut => "delete the pods that are left".to_owned(),
        Action::RunHook(hook) => format!("run hook {hook}"),
        Action::ApproveReboot { .. } => "reboot".to_owned(),
        Action::Commit => "keep it".to_owned(),
        Action::Revert { .. } => "go back".to_owned(),
        Action::Uncordon => "uncordon".to_owned(),
        Action::EndDisruption(turn) => format!("end the turn ({:?})", turn.outcome),
        Action::ReleasePlan => "let go".to_owned(),
        Action::OrderRecovery(Some(_)) => "write the recovery slot".to_owned(),
        Action::OrderRecovery(None) => "leave the recovery slot".to_owned(),
        Action::OrderReset(_) => "begin anew".to_owned(),
        Action::EndReset => "end the turn".to_owned(),
        Action::EnsurePlan
        | Action::ForgetReset { .. }
        | Action::Evict
        | Action::MarkDraining(_)
        | Action::MarkDrained(_)
        | Action::MarkHealthy(_)
        | Action::Avoid(_) => return None,
    })
}

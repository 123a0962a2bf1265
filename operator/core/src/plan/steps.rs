//! The first steps of a rollout: some nodes, then time or somebody's word.

use evenkeel_crds::{
    condition::Time,
    rollout_status::{Approval, Progress},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    fleet::{Fleet, updated},
    queue::below_minimum,
};
use crate::{
    policy::{Policy, step_nodes},
    report::{StepState, StepWait},
    snapshot::{NodeSeen, Snapshot},
    wishes::step_token,
};

/// Where the rollout is in its steps.
pub struct Steps {
    /// How far it is, to be written down.
    pub progress: Option<Progress>,
    /// The step that it is in; none when all are behind it.
    pub state: Option<StepState>,
    /// How many more nodes without a step of their own may be started now.
    left: usize,
    /// The last step whose own nodes may be started.
    open: Option<usize>,
}

impl Steps {
    pub fn of(policy: &Policy, snapshot: &Snapshot, fleet: &Fleet, now: Timestamp) -> Self {
        let Some(release) = policy.release() else {
            return Self { progress: policy.progress.clone(), state: None, left: 0, open: None };
        };
        let known = policy.progress.clone().filter(|progress| progress.digest == release);
        let mut progress = known.unwrap_or_else(|| Progress {
            digest: release,
            started_at: Some(Time(now)),
            ..Progress::default()
        });
        approve(policy, &mut progress, now);
        let state = walk(policy, snapshot, fleet, &mut progress, now);
        let passed = usize::try_from(progress.steps_passed).unwrap_or(0);
        let running = state.as_ref().and_then(|state| match state.waits {
            StepWait::Nodes { done, wanted } => Some((done, wanted)),
            _ => None,
        });
        let by_number = policy.steps.get(passed).is_some_and(|step| step.nodes.is_some());
        let left = match (&state, running) {
            (None, _) => usize::MAX,
            (Some(_), Some((_, wanted))) if by_number => wanted.saturating_sub(begun(policy, snapshot)),
            _ => 0,
        };
        let open = running.map(|_| passed).or_else(|| passed.checked_sub(1));
        Self { progress: Some(progress), state, left, open }
    }

    /// Whether the step lets this node start. One that is passed is a node that joined late, or came back.
    pub fn allows(&self, node: &NodeSeen) -> bool {
        match (&self.state, node.step) {
            (None, _) => true,
            (Some(_), Some(step)) => self.open.is_some_and(|open| step <= open),
            (Some(_), None) => self.left > 0,
        }
    }

    /// A node was started.
    pub fn took(&mut self, node: &NodeSeen) {
        if node.step.is_none() {
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// Keeps somebody's word, also when the annotation goes.
fn approve(policy: &Policy, progress: &mut Progress, now: Timestamp) {
    let Some(approved) = &policy.approved else { return };
    let named = (0..policy.steps.len()).find(|step| step_token(&progress.digest, *step) == approved.step);
    let Some(number) = named.and_then(|step| i32::try_from(step + 1).ok()) else { return };
    if !progress.approvals.iter().any(|approval| approval.step == number) {
        progress.approvals.push(Approval { step: number, by: approved.by.clone(), at: Some(Time(now)) });
    }
}

/// Goes past every step that is done; says what the next one waits for.
fn walk(
    policy: &Policy,
    snapshot: &Snapshot,
    fleet: &Fleet,
    progress: &mut Progress,
    now: Timestamp,
) -> Option<StepState> {
    let of = policy.steps.len();
    loop {
        let at = usize::try_from(progress.steps_passed).unwrap_or(0);
        let step = policy.steps.get(at)?;
        let number = at + 1;
        let wait = |waits| Some(StepState { number, of, waits });
        let (done, wanted, is_over) = if let Some(wanted) = step_nodes(step).ok().flatten() {
            let wanted = wanted.of(fleet.size).min(fleet.size);
            let done = count(snapshot, |_, node| updated(policy, node));
            let mine = |node: &NodeSeen| node.step.is_none_or(|own| own <= at);
            let left = count(snapshot, |name, node| mine(node) && is_open(policy, fleet, name, node));
            (done, wanted, done >= wanted || left == 0)
        } else {
            let mine = |node: &NodeSeen| node.step == Some(at) && !node.unmanageable();
            let wanted = count(snapshot, |_, node| mine(node));
            let left = count(snapshot, |name, node| mine(node) && is_open(policy, fleet, name, node));
            if wanted == 0 {
                return wait(StepWait::NoNode);
            }
            (wanted - left, wanted, left == 0)
        };
        if !is_over {
            progress.step_done_at = None;
            return wait(StepWait::Nodes { done, wanted });
        }
        let done_at = progress.step_done_at.get_or_insert(Time(now)).0;
        let until = done_at + SignedDuration::from_secs(step.soak_seconds);
        if now < until {
            return wait(StepWait::Soak { until });
        }
        let approved = progress.approvals.iter().any(|approval| usize::try_from(approval.step) == Ok(number));
        if step.approval && !approved {
            return wait(StepWait::Approval { token: step_token(&progress.digest, at) });
        }
        progress.steps_passed += 1;
        progress.step_done_at = None;
    }
}

/// Whether a step still waits for this node. One that failed is the failure policy's matter.
fn is_open(policy: &Policy, fleet: &Fleet, name: &str, node: &NodeSeen) -> bool {
    let never = node.unmanageable() || fleet.failures.is_final(name) || below_minimum(policy, node).is_some();
    !updated(policy, node) && !never
}

/// Nodes without a step of their own or of any step, that run the image or are on their way to it: they take of a step's
/// number. Others are started in the place of those that failed, for a step wants nodes that prove the image.
fn begun(policy: &Policy, snapshot: &Snapshot) -> usize {
    count(snapshot, |_, node| updated(policy, node) || node.disruption().is_some())
}

fn count(snapshot: &Snapshot, is: impl Fn(&str, &NodeSeen) -> bool) -> usize {
    snapshot.nodes.iter().filter(|(name, node)| node.ours() && is(name, node)).count()
}

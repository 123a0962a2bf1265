//! The line that says what is happening, why not more, what next, and when.

use evenkeel_crds::rollout_status::Progress;
use jiff::SignedDuration;

use super::{Hold, NodeState, Report, StepWait, is_apart};
use crate::policy;

/// Names that the line has before it counts: enough to begin looking; the plans have the rest.
const NAMES_MAX: usize = 3;

impl Report {
    /// One line for people: how far, what is going on, what holds it, what is next.
    pub fn summary(&self) -> String {
        let mut parts =
            vec![format!("{}/{} updated", self.count(|state| *state == NodeState::Updated), self.total())];
        parts.extend(self.counted());
        parts.extend(self.named());
        if let Some(stopped) = &self.stopped {
            parts.push(format!("stopped: {stopped}"));
        } else if let Some(paused) = &self.paused {
            parts.push(format!("paused by {paused}{}", self.would()));
        } else if self.dry_run {
            parts.push(format!("dry run{}", self.would()));
        } else if let Some(budget) = &self.used_up {
            parts.push(format!(
                "nodes on which the image failed take all of {budget}, so that no other is started: mend them, raise \
                 it, or set another osImage"
            ));
        } else if let Some((name, why)) = self.held() {
            parts.push(format!("next {name}: {why}"));
        }
        if let (Some(step), None) = (&self.step, &self.stopped)
            && !parts.iter().any(|part| part.ends_with(&step.to_string()))
            && (self.waiting() > 0 || matches!(step.waits, StepWait::Nodes { .. }))
            && !self.done()
        {
            parts.push(step.to_string());
        }
        if let Some(wish) = &self.run_now {
            parts.push(format!("windows are ignored until {} ({})", wish.until.0, wish.by));
        }
        parts.extend(self.left());
        parts.extend(Some(self.recovery.to_string()).filter(|said| !said.is_empty()));
        parts.extend(self.notes.iter().cloned());
        parts.join("; ")
    }

    /// What many nodes do at once, without their names.
    fn counted(&self) -> Vec<String> {
        let of = |is: fn(&NodeState) -> bool, what: &str| {
            let count = self.count(is);
            (count > NAMES_MAX).then(|| format!("{count} {what}"))
        };
        let staging = of(|state| *state == NodeState::Staging, "staging");
        let silent = of(|state| *state == NodeState::AgentSilent, "wait for their agent's first report");
        let failed = self.count(|state| matches!(state, NodeState::Failed(_)));
        let failed =
            (failed > 0 && self.stopped.is_none()).then(|| format!("{failed} failed ({})", self.failures()));
        [staging, silent, failed].into_iter().flatten().collect()
    }

    fn failures(&self) -> String {
        let failed = self.nodes.iter().filter_map(|(name, state)| match state {
            NodeState::Failed(why) => Some(format!("{name}: {}", why.trim_end_matches('.'))),
            _ => None,
        });
        failed.take(1).collect()
    }

    /// What single nodes do: those with trouble first.
    fn named(&self) -> Vec<String> {
        let many = |is: fn(&NodeState) -> bool| self.count(is) > NAMES_MAX;
        let staging = many(|state| *state == NodeState::Staging);
        let silent = many(|state| *state == NodeState::AgentSilent);
        let counted = |state: &NodeState| {
            staging && *state == NodeState::Staging || silent && *state == NodeState::AgentSilent
        };
        let mut moving: Vec<(&String, &NodeState)> =
            self.nodes.iter().filter(|(_, state)| is_moving(state) && !counted(state)).collect();
        moving.sort_by_key(|(_, state)| !is_trouble(state));
        let more = moving.len().saturating_sub(NAMES_MAX);
        let mut parts: Vec<String> =
            moving.into_iter().take(NAMES_MAX).map(|(name, state)| format!("{name} {state}")).collect();
        if more > 0 {
            parts.push(format!("{more} more on their way"));
        }
        parts
    }

    fn waiting(&self) -> usize {
        self.count(|state| matches!(state, NodeState::WaitsToStage(_) | NodeState::WaitsToStart(_)))
    }

    /// What a pause keeps from happening.
    fn would(&self) -> String {
        let names = self.queue.join(", ");
        let dots = if self.waiting() > self.queue.len() { ", …" } else { "" };
        let count = match self.waiting() {
            0 => return String::new(),
            1 => "1 node".to_owned(),
            count => format!("{count} nodes"),
        };
        let to = match &self.progress {
            None => "the image".to_owned(),
            Some(Progress { version: Some(version), digest, .. }) => format!("{version} ({})", short(digest)),
            Some(Progress { digest, .. }) => short(digest),
        };
        format!(": would update {count} ({names}{dots}) to {to}")
    }

    /// The first node that waits, and what for, but for those that are told of by name.
    fn held(&self) -> Option<(&str, String)> {
        self.queue.iter().find_map(|name| match self.nodes.get(name)? {
            state if is_held(state) => None,
            NodeState::WaitsToStage(hold) | NodeState::WaitsToStart(hold) => {
                Some((name.as_str(), hold.to_string()))
            }
            _ => None,
        })
    }

    /// How long the nodes that are left take, one after the other and by what earlier ones took.
    fn left(&self) -> Option<String> {
        let left = u32::try_from(self.waiting()).ok().filter(|left| *left > 0 && self.stopped.is_none())?;
        Some(format!("a node takes about {}, {left} to go", span(self.takes?)))
    }
}

/// So much of a release as a person compares.
fn short(release: &str) -> String {
    format!("sha256:{}", policy::short(release))
}

/// A length of time as people say it: the largest two units.
pub fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn is_moving(state: &NodeState) -> bool {
    if is_held(state) {
        // What is in its way is news, and somebody may have to act.
        return true;
    }
    !is_apart(state)
        && !matches!(
            state,
            NodeState::Updated
                | NodeState::WaitsToStage(_)
                | NodeState::WaitsToStart(_)
                | NodeState::Failed(_)
                | NodeState::TakenBack
        )
}

/// Whether it is known why the node may not leave service.
fn is_held(state: &NodeState) -> bool {
    matches!(state, NodeState::WaitsToStart(Hold::Departure(_)))
}

fn is_trouble(state: &NodeState) -> bool {
    matches!(
        state,
        NodeState::Lost(_)
            | NodeState::BelowMinimum(_)
            | NodeState::Overdue(_)
            | NodeState::Retrying(_)
            | NodeState::TriesAgain { .. }
            | NodeState::Unhealthy(_)
            | NodeState::Reverting(_)
            | NodeState::Draining { blocked_by: Some(_), .. }
            | NodeState::Draining { overdue: true, .. }
            | NodeState::WaitsToStart(Hold::Departure(_))
    )
}

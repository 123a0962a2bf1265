//! What people see of a rollout: the status, rendered from the report.

mod history;

use std::collections::BTreeMap;

use evenkeel_crds::{
    Condition, ManagedOSImageStatus,
    condition::{ConditionStatus, Time, keep_transition_times},
    managed_os_image::NodeCounts,
    rollout_status::Progress,
};
use evenkeel_operator_core::{NodeState, Report, Snapshot};
use jiff::Timestamp;

/// Longest message of a condition, in bytes; the schema allows 4096 characters.
const MESSAGE_MAX: usize = 2048;
/// Names that a message lists before it counts the rest.
const NAMES_MAX: usize = 5;

/// Why an image object cannot be followed for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One CamelCase word.
    pub reason: String,
    /// What failed, on which thing, and what can be done.
    pub message: String,
    /// Whether it may go away without anybody's help.
    pub passing: bool,
}

impl Problem {
    /// A problem that may go away without anybody's help.
    pub fn passing(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, passing: true }
    }

    /// A problem that somebody has to solve.
    pub fn lasting(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, passing: false }
    }
}

/// The image's digest and version, as the status keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSeen {
    /// `repository@sha256:…`.
    pub image: Option<String>,
    /// What it was resolved from.
    pub resolved_from: Option<String>,
    /// SHA-256 of the rules that its signatures satisfied.
    pub verified_by: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

impl ImageSeen {
    /// What a status has.
    pub fn of(status: &ManagedOSImageStatus) -> Self {
        Self {
            image: status.image.clone(),
            resolved_from: status.resolved_from.clone(),
            verified_by: status.verified_by.clone(),
            version: status.version.clone(),
        }
    }
}

/// The status to show. `before` is the one that the API server has.
pub fn render(
    image: ImageSeen,
    problem: Option<&Problem>,
    told: Option<(&Report, &Snapshot)>,
    generation: Option<i64>,
    before: &ManagedOSImageStatus,
    now: Timestamp,
) -> ManagedOSImageStatus {
    let nodes = told.map_or_else(|| before.nodes.clone(), |(report, snapshot)| counts(report, snapshot));
    let rollout = told.map_or_else(|| before.rollout.clone(), |(report, _)| report.progress.clone());
    let rollout = rollout.map(|rollout| Progress { version: image.version.clone(), ..rollout });
    let verdict = verdict(problem, told.map(|(report, _)| report));
    let summary = match (told, problem) {
        (Some((report, _)), None) => summary(report),
        (Some((report, _)), Some(problem)) => format!("{}; {}", summary(report), problem.message),
        (None, Some(problem)) => problem.message.clone(),
        (None, None) => verdict.message.clone(),
    };
    ManagedOSImageStatus {
        observed_generation: generation,
        image: image.image,
        resolved_from: image.resolved_from,
        verified_by: image.verified_by,
        version: image.version,
        channel: before.channel.clone(),
        summary: Some(cut(summary)),
        rejected: told.map_or_else(|| before.rejected.clone(), |(report, _)| report.rejected.clone()),
        denied: told.map_or_else(|| before.denied.clone(), |(report, _)| report.denied.clone()),
        history: history::of(before, rollout.as_ref(), &nodes, now),
        rollout,
        next_window: told.and_then(|(report, _)| report.next_window).map(Time),
        run_now: told.and_then(|(report, _)| report.run_now.clone()),
        preview: told.and_then(|(report, _)| report.preview.clone()),
        nodes,
        phases: told.map_or_else(|| before.phases.clone(), |(_, snapshot)| phases(snapshot)),
        conditions: keep_transition_times(verdict.conditions(generation, now), &before.conditions),
    }
}

/// Where the whole is.
pub struct Verdict {
    ready: bool,
    reconciling: bool,
    stalled: bool,
    reason: String,
    message: String,
}

impl Verdict {
    /// All is as it should be.
    pub fn ready(reason: &str, message: String) -> Self {
        Self { ready: true, reconciling: false, stalled: false, reason: reason.to_owned(), message }
    }

    /// Something is not as it should be, and may become so by itself or not.
    pub fn problem(reason: &str, message: String, passing: bool) -> Self {
        Self { ready: false, reconciling: passing, stalled: !passing, reason: reason.to_owned(), message }
    }

    /// The three conditions that kstatus understands.
    pub fn conditions(self, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
        let message = cut(self.message);
        let condition = |kind: &str, holds: bool| Condition {
            r#type: kind.to_owned(),
            status: if holds { ConditionStatus::True } else { ConditionStatus::False },
            reason: self.reason.clone(),
            message: message.clone(),
            last_transition_time: Time(now),
            observed_generation: generation,
        };
        vec![
            condition("Ready", self.ready),
            condition("Reconciling", self.reconciling),
            condition("Stalled", self.stalled),
        ]
    }
}

fn verdict(problem: Option<&Problem>, report: Option<&Report>) -> Verdict {
    let stuck = |reason: &str, message: String| Verdict {
        ready: false,
        reconciling: false,
        stalled: true,
        reason: reason.to_owned(),
        message,
    };
    let moving = |reason: &str, message: String| Verdict {
        reconciling: true,
        stalled: false,
        ..stuck(reason, message)
    };
    if let Some(problem) = problem {
        let (reason, message) = (&problem.reason, problem.message.clone());
        return if problem.passing { moving(reason, message) } else { stuck(reason, message) };
    }
    let Some(report) = report else {
        return moving("Resolving", "the image's reference is being resolved".into());
    };
    if report.deleting {
        return moving("Deleting", format!("its nodes are let go of: {}", summary(report)));
    }
    if let Some(why) = &report.stopped {
        return stuck("RolloutStopped", why.clone());
    }
    if report.done() {
        return done(report, &stuck);
    }
    if report.used_up.is_some() {
        return stuck("FailedNodesUseBudget", summary(report));
    }
    if report.ended() {
        return stuck("NodesFailed", format!("all nodes that can run the image do. {}", summary(report)));
    }
    if report.dry_run {
        return Verdict { reconciling: false, ..moving("DryRun", summary(report)) };
    }
    if let Some(by) = &report.paused {
        let message = format!("paused by {by}: nodes that were started are finished, no other is started");
        return Verdict { reconciling: false, ..moving("Paused", message) };
    }
    moving("RolloutInProgress", summary(report))
}

/// Nothing is left to do for the nodes that this image has; is that all that was asked?
fn done(report: &Report, stuck: &impl Fn(&str, String) -> Verdict) -> Verdict {
    let others = named(report, |state| matches!(state, NodeState::ClaimedByOther(_)));
    if let Some(others) = others {
        let owner = report.nodes.values().find_map(|state| match state {
            NodeState::ClaimedByOther(owner) => Some(owner.as_str()),
            _ => None,
        });
        return stuck(
            "NodesBelongToOther",
            format!(
                "ManagedOSImage {} was there first and has {others}: change one of the two nodeSelectors",
                owner.unwrap_or_default()
            ),
        );
    }
    let unmanageable = named(report, |state| *state == NodeState::Unmanageable);
    if let (Some(nodes), 0) = (&unmanageable, report.total()) {
        return stuck(
            "NodesNotManageable",
            format!(
                "not installed with Evenkeel, and so not to be upgraded: {nodes}. Install them with `evenkeel-agent \
                 install`, or select other nodes"
            ),
        );
    }
    let (reason, message) = match report.total() {
        0 => ("NoNodes", "no node matches nodeSelector".to_owned()),
        total => ("RolloutFinished", format!("all {total} nodes run the image")),
    };
    let apart =
        unmanageable.map_or_else(String::new, |nodes| format!("; not installed with Evenkeel: {nodes}"));
    Verdict {
        ready: true,
        reconciling: false,
        stalled: false,
        reason: reason.to_owned(),
        message: format!("{message}{apart}"),
    }
}

/// The report's line, and the nodes that are none of its concern.
fn summary(report: &Report) -> String {
    let mut line = report.summary();
    let others = named(report, |state| matches!(state, NodeState::ClaimedByOther(_)));
    let unmanageable = named(report, |state| *state == NodeState::Unmanageable);
    for (why, nodes) in
        [("other ManagedOSImages have", others), ("not installed with Evenkeel:", unmanageable)]
    {
        if let Some(nodes) = nodes {
            line = format!("{line}; {why} {nodes}");
        }
    }
    line
}

/// The names of the nodes in such a state, the first few of them.
fn named(report: &Report, is: impl Fn(&NodeState) -> bool) -> Option<String> {
    let names: Vec<&str> =
        report.nodes.iter().filter(|(_, state)| is(state)).map(|(name, _)| name.as_str()).collect();
    let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        count if count > NAMES_MAX => Some(format!("{shown} and {} more", count - NAMES_MAX)),
        _ => Some(shown),
    }
}

fn counts(report: &Report, snapshot: &Snapshot) -> NodeCounts {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    NodeCounts {
        total: count(report.total()),
        updated: count(report.count(|state| *state == NodeState::Updated)),
        updating: count(snapshot.nodes.values().filter(|node| node.disruption().is_some()).count()),
        failed: count(report.count(NodeState::is_failure)),
    }
}

fn phases(snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let mut phases = BTreeMap::new();
    for plan in snapshot.nodes.values().filter_map(|node| node.plan.as_ref()) {
        *phases.entry(format!("{:?}", plan.status.phase)).or_insert(0) += 1;
    }
    phases
}

fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_MAX - 4));
        text.push_str(" …");
    }
    text
}

/// A condition's reason, if it is there.
pub fn reason<'a>(status: &'a ManagedOSImageStatus, kind: &str) -> Option<&'a str> {
    let found = status.conditions.iter().find(|condition| condition.r#type == kind)?;
    Some(&found.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(states: &[(&str, NodeState)]) -> Report {
        Report {
            nodes: states.iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect(),
            ..Report::default()
        }
    }

    fn shown(report: Option<&Report>, problem: Option<&Problem>) -> ManagedOSImageStatus {
        let snapshot = Snapshot::default();
        let told = report.map(|report| (report, &snapshot));
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        render(ImageSeen::default(), problem, told, Some(3), &ManagedOSImageStatus::default(), now)
    }

    fn flags(status: &ManagedOSImageStatus) -> String {
        let letter = |kind: &'static str| {
            let condition = status.conditions.iter().find(|condition| condition.r#type == kind).unwrap();
            if condition.status == ConditionStatus::True { &kind[..1] } else { "-" }
        };
        format!(
            "{}{}{} {}",
            letter("Ready"),
            letter("Reconciling"),
            letter("Stalled"),
            reason(status, "Ready").unwrap()
        )
    }

    #[test]
    fn conditions_say_where_the_whole_is() {
        let updated = report(&[("n1", NodeState::Updated)]);
        let moving = report(&[("n1", NodeState::Updated), ("n2", NodeState::Staging)]);
        let paused = Report { paused: Some("night-shift".into()), ..moving.clone() };
        let stopped = Report { stopped: Some("os failed on n1".into()), ..moving.clone() };
        let claimed = report(&[("n1", NodeState::Updated), ("n2", NodeState::ClaimedByOther("old".into()))]);
        let foreign = report(&[("n1", NodeState::Unmanageable)]);
        let table = [
            (shown(None, None), "-R- Resolving"),
            (shown(Some(&report(&[])), None), "R-- NoNodes"),
            (shown(Some(&updated), None), "R-- RolloutFinished"),
            (shown(Some(&moving), None), "-R- RolloutInProgress"),
            (shown(Some(&paused), None), "--- Paused"),
            (shown(Some(&stopped), None), "--S RolloutStopped"),
            (shown(Some(&claimed), None), "--S NodesBelongToOther"),
            (shown(Some(&Report { deleting: true, ..stopped }), None), "-R- Deleting"),
            (shown(Some(&foreign), None), "--S NodesNotManageable"),
            (
                shown(None, Some(&Problem::passing("RegistryUnreachable", "x".into()))),
                "-R- RegistryUnreachable",
            ),
            (shown(Some(&moving), Some(&Problem::lasting("ImageNotFound", "x".into()))), "--S ImageNotFound"),
        ];
        for (status, expected) in table {
            assert_eq!(flags(&status), expected, "{status:?}");
            assert_eq!(status.observed_generation, Some(3));
        }
    }

    #[test]
    fn nodes_of_no_concern_are_named() {
        let nodes: Vec<(String, NodeState)> =
            (0..8).map(|number| (format!("n{number}"), NodeState::ClaimedByOther("old".into()))).collect();
        let nodes: Vec<(&str, NodeState)> =
            nodes.iter().map(|(name, state)| (name.as_str(), state.clone())).collect();
        let status = shown(Some(&report(&nodes)), None);
        assert_eq!(status.nodes.total, 0);
        let summary = status.summary.unwrap();
        assert!(summary.ends_with("other ManagedOSImages have n0, n1, n2, n3, n4 and 3 more"), "{summary}");
    }

    #[test]
    fn a_status_that_says_the_same_later_is_the_same() {
        let report = report(&[("n1", NodeState::Staging)]);
        let snapshot = Snapshot::default();
        let at = |second, before: &ManagedOSImageStatus| {
            let now = Timestamp::from_second(second).unwrap();
            render(ImageSeen::default(), None, Some((&report, &snapshot)), Some(1), before, now)
        };
        let first = at(1_800_000_000, &ManagedOSImageStatus::default());
        assert_eq!(at(1_800_000_100, &first), first);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = shown(None, Some(&Problem::lasting("ImageNotFound", "ä".repeat(5000))));
        let summary = status.summary.unwrap();
        assert!(summary.len() <= MESSAGE_MAX && summary.ends_with('…'));
    }
}

//! What would be done: the planner itself, run over a fleet in which everything goes well.

use evenkeel_crds::{
    condition::Time,
    node_plan::{Phase, Target},
    rollout_status::{Approval, Preview},
};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision, failure::Failures, fleet::updated, plan};
use crate::{
    gates,
    policy::Policy,
    report::{NodeState, StepState, StepWait},
    snapshot::{NodeSeen, PlanSeen, Snapshot},
};

/// Waves that are planned one by one; the rest is taken to go on like these. So a preview costs so many looks, whatever
/// the fleet.
const WAVES_MAX: usize = 50;
/// What a preview shows of them.
const SHOWN: (usize, usize) = (5, 10);
/// Reasons that a preview lists.
const BLOCKERS_MAX: usize = 16;
/// Longest reason, in characters; the schema's limit.
const BLOCKER_MAX: usize = 512;

/// Something that is true of a node.
type Fact<'a> = &'a dyn Fn(&str, &NodeSeen) -> bool;

/// What would be done from `now` on.
pub fn of(policy: &Policy, failures: &Failures, snapshot: &Snapshot, now: Timestamp) -> Preview {
    let mut run = Run::new(policy, failures, snapshot, now);
    run.blockers(policy, failures, snapshot, now);
    while run.waves.len() < WAVES_MAX && run.wave() {}
    run.preview()
}

struct Run {
    policy: Policy,
    fleet: Snapshot,
    now: Timestamp,
    waves: Vec<Vec<String>>,
    blockers: Vec<String>,
    takes: Option<SignedDuration>,
    /// When the last wave ends.
    end: Timestamp,
    /// Nodes that could be updated.
    nodes: usize,
}

impl Run {
    fn new(policy: &Policy, failures: &Failures, snapshot: &Snapshot, now: Timestamp) -> Self {
        let mut policy = Policy { dry_run: false, pauses: Vec::new(), ..policy.clone() };
        // Nobody is asked about nodes that are not there yet.
        policy.gates.clear();
        policy.drain.dry_run = false;
        let mut fleet = snapshot.clone();
        for (name, node) in &mut fleet.nodes {
            // That is no part of the rollout.
            node.reset = None;
            if node.disruption().is_some() {
                update(&policy, node);
            } else if failures.on(name).is_none() && could_take_it(&policy, node) {
                stage(&policy, node);
            }
        }
        let staged = |node: &&NodeSeen| node.ours() && node.phase() == Phase::Staged;
        let nodes = fleet.nodes.values().filter(staged).count();
        Self { policy, fleet, now, waves: Vec::new(), blockers: Vec::new(), takes: None, end: now, nodes }
    }

    /// What is in the way today.
    fn blockers(&mut self, policy: &Policy, failures: &Failures, snapshot: &Snapshot, now: Timestamp) {
        if let Some(pause) = policy.pause(now) {
            self.block(&format!("paused by {} ({})", pause.owner, pause.reason));
        }
        let ours = || snapshot.nodes.iter().filter(|(_, node)| node.ours());
        let silent = |node: &NodeSeen| node.plan.as_ref().is_none_or(|plan| plan.status.host.is_none());
        let facts: [(&str, Fact); 6] = [
            ("without a report of their agent", &|_, node| silent(node)),
            ("not installed with Evenkeel", &|_, node| node.unmanageable()),
            ("not Ready", &|_, node| !node.ready),
            ("cordoned by somebody else", &|_, node| node.unschedulable && node.cordoned_by.is_none()),
            ("failed with this image", &|name, _| failures.on(name).is_some()),
            ("may not leave service", &|_, node| gates::is_held(policy, node, now)),
        ];
        for (what, is) in facts {
            let mut names = ours().filter(|(name, node)| is(name, node)).map(|(name, _)| name.as_str());
            if let Some(first) = names.next() {
                let more = match names.count() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                self.block(&format!("{what}: {first}{more}"));
            }
        }
    }

    fn block(&mut self, why: &str) {
        let why: String = why.chars().take(BLOCKER_MAX).collect();
        if self.blockers.len() < BLOCKERS_MAX && !self.blockers.contains(&why) {
            self.blockers.push(why);
        }
    }

    /// The next wave. False when nothing more happens.
    fn wave(&mut self) -> bool {
        let decision = plan(&self.policy, &self.fleet, self.now);
        self.policy.progress.clone_from(&decision.report.progress);
        self.takes = self.takes.or(decision.report.takes);
        let begun = |(name, action): &(String, Action)| {
            matches!(action, Action::BeginDisruption(record) if !record.going_back).then(|| name.clone())
        };
        let wave: Vec<String> = decision.actions.iter().filter_map(begun).collect();
        if wave.is_empty() {
            return self.wait(&decision);
        }
        for name in &wave {
            if let Some(node) = self.fleet.nodes.get_mut(name) {
                update(&self.policy, node);
            }
        }
        self.now += self.takes.unwrap_or_default();
        self.end = self.now;
        self.waves.push(wave);
        true
    }

    /// Goes to when it goes on, if that is known.
    fn wait(&mut self, decision: &Decision) -> bool {
        let report = &decision.report;
        if let Some(stopped) = &report.stopped {
            self.block(stopped);
            return false;
        }
        let mut later = |next: Timestamp| {
            let goes_on = next > self.now;
            self.now = self.now.max(next);
            goes_on
        };
        match (&report.step, report.next_window) {
            (_, Some(next)) => later(next),
            (Some(StepState { waits: StepWait::Soak { until }, .. }), _) => later(*until),
            (Some(state @ StepState { waits: StepWait::Approval { .. }, number, .. }), _) => {
                let step = i32::try_from(*number).unwrap_or(i32::MAX);
                let why = state.to_string();
                if let Some(progress) = &mut self.policy.progress {
                    progress.approvals.push(Approval { step, ..Approval::default() });
                }
                self.block(&why);
                true
            }
            _ => {
                let held = report.queue.iter().find_map(|name| match report.nodes.get(name)? {
                    NodeState::WaitsToStart(hold) | NodeState::WaitsToStage(hold) => {
                        Some(format!("{name}: {hold}"))
                    }
                    _ => None,
                });
                if let Some(why) = held {
                    self.block(&why);
                }
                false
            }
        }
    }

    fn preview(self) -> Preview {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let planned: usize = self.waves.iter().map(Vec::len).sum();
        let last = self.waves.last().map_or(1, Vec::len).max(1);
        let full = self.waves.len() >= WAVES_MAX;
        let more = if full { (self.nodes - planned.min(self.nodes)).div_ceil(last) } else { 0 };
        let waves = self.waves.len() + more;
        let seconds = self.takes.map(|takes| takes.as_secs().saturating_mul(count(waves)));
        let ends = self.takes.and_then(|takes| {
            let rest = takes.checked_mul(i32::try_from(more).ok()?)?;
            whole_hour(self.end.checked_add(rest).ok()?)
        });
        let shown = self.waves.into_iter().take(SHOWN.0);
        Preview {
            nodes: count(if full { self.nodes } else { planned }),
            waves: count(waves),
            order: shown.map(|wave| wave.into_iter().take(SHOWN.1).collect()).collect(),
            blockers: self.blockers,
            seconds,
            ends_at: ends.map(Time),
        }
    }
}

/// The next whole hour: what is shown must not change with each look.
fn whole_hour(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second((at.as_second() / 3600 + 1).checked_mul(3600)?).ok()
}

fn could_take_it(policy: &Policy, node: &NodeSeen) -> bool {
    let reported = node.plan.as_ref().is_some_and(|plan| plan.status.host.is_some());
    node.ours() && reported && !node.unmanageable() && !updated(policy, node)
}

fn stage(policy: &Policy, node: &mut NodeSeen) {
    let Some(PlanSeen { spec, status }) = &mut node.plan else { return };
    spec.plan_id = Some(policy.plan_id(1));
    spec.image.clone_from(&policy.image);
    spec.cloud_config.clone_from(&policy.cloud_config);
    spec.live = policy.applies_live();
    spec.target = Some(Target::Staged);
    spec.pull = policy.pull.clone();
    spec.verification.clone_from(&policy.verification);
    spec.commit_deadline_seconds = Some(policy.reboot.commit_deadline_seconds);
    status.plan_id.clone_from(&spec.plan_id);
    status.phase = Phase::Staged;
    status.live = status.booted.as_ref().is_some_and(|booted| policy.needs_no_reboot(booted));
    status.error = None;
}

fn update(policy: &Policy, node: &mut NodeSeen) {
    if node.cordoned_by.take().is_some() {
        node.unschedulable = false;
    }
    node.ready = true;
    let Some(PlanSeen { spec, status }) = &mut node.plan else { return };
    spec.disruption = None;
    spec.target = Some(Target::Committed);
    status.phase = Phase::Committed;
    if let (Some(booted), Some(release)) = (&mut status.booted, policy.release()) {
        booted.digest = release;
    }
}

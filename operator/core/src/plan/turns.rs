//! Hands out what is free: turns to start, and places to stage.

mod resets;

use evenkeel_crds::{
    condition::Time,
    node_plan::{Disruption, Phase, Target},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Action, Decision,
    budget::Budget,
    failure,
    fleet::Fleet,
    order,
    queue::{as_ordered, next_attempt, ordered_attempt},
    steps::Steps,
    stuck,
};
use crate::{
    gates::{self, Leave},
    policy::Policy,
    report::{Hold, NodeState},
    schedule::Opening,
    snapshot::{NodeSeen, Snapshot},
};

/// Nodes that may not leave service for which others are tried in their place. What holds back more than these is most
/// likely to hold back all.
const HELD_MAX: usize = 16;

/// An agent that has not said a word about its order for so long holds no other node back.
const SILENT: SignedDuration = SignedDuration::from_mins(10);

/// For so long after an image object was made the first reports of its nodes are on their way. That an agent was quicker than
/// another does not make its node the one that proves the image.
const INTRODUCTION: SignedDuration = SignedDuration::from_secs(30);

/// What can be handed out, and what holds it.
pub struct Turns<'a> {
    policy: &'a Policy,
    fleet: &'a Fleet<'a>,
    budget: Budget<'a>,
    steps: Steps,
    /// What holds every start, whichever node it is.
    closed: Option<Hold>,
    /// What holds every node from staging.
    unstaged: Option<Hold>,
    /// The node that is to prove the image and has not reported yet.
    unheard: Option<&'a str>,
    /// The domain that is to be finished.
    domain: Option<&'a str>,
    /// The same, or that of the first node that waits.
    next_domain: Option<&'a str>,
    staging: usize,
    ahead: usize,
    /// How many nodes may not leave service.
    held: usize,
    /// Whether a node waits that need not wait for long: the operator's own lets it go first.
    others_wait: bool,
}

impl<'a> Turns<'a> {
    pub fn of(
        policy: &'a Policy,
        fleet: &'a Fleet<'a>,
        snapshot: &'a Snapshot,
        steps: Steps,
        now: Timestamp,
        decision: &mut Decision,
    ) -> Self {
        let everything = held(policy, fleet, decision);
        let closed = everything.clone().or_else(|| window(policy, fleet, now, decision));
        let unstaged = everything.or_else(|| staging_window(policy, now, decision));
        let in_turn = |node: &&NodeSeen| {
            node.ours()
                && node.disruption().is_some_and(|record| record.reset.is_none())
                && failure::lost(policy, node, now).is_none()
                && !failure::stays_away(node)
        };
        let domain = snapshot.nodes.values().find(in_turn).map(|node| node.domain.as_str());
        let ahead = snapshot.nodes.values().filter(|node| node.disruption().is_some()).count();
        let budget = Budget::of(policy, fleet, snapshot);
        Self {
            policy,
            fleet,
            budget,
            steps,
            closed,
            unstaged,
            unheard: None,
            domain,
            next_domain: domain,
            staging: 0,
            ahead,
            held: 0,
            others_wait: false,
        }
    }

    /// Goes through all nodes that nothing was said of yet.
    pub fn hand_out(mut self, snapshot: &'a Snapshot, now: Timestamp, decision: &mut Decision) {
        let mut waiting: Vec<(&String, &NodeSeen)> =
            snapshot.nodes.iter().filter(|(name, _)| !decision.report.nodes.contains_key(*name)).collect();
        order::sort(self.policy, snapshot, &mut waiting);
        decision.report.queue = waiting.iter().take(3).map(|(name, _)| (*name).clone()).collect();
        let Some(image) = &self.policy.image else {
            for (name, _) in waiting {
                decision.say(name, NodeState::WaitsToStage(Hold::Unresolved));
            }
            return self.begin_resets(snapshot, now, decision);
        };
        self.unheard = self.first_unheard(snapshot, &waiting, now, decision);
        self.next_domain = self.domain.or_else(|| {
            let first = waiting.iter().find(|(_, node)| self.may_come_soon(node));
            first.map(|(_, node)| node.domain.as_str())
        });
        let mut kept = 0;
        for (name, node) in &waiting {
            let ordered = self.ordered(name, node).is_some();
            let staged = node.phase() == Phase::Staged;
            // One that may not leave service does not prove the image: then another one has to.
            let stays = ordered && staged && kept < HELD_MAX && gates::is_held(self.policy, node, now);
            kept += usize::from(stays);
            // A node that does not answer holds no place.
            let counts = ordered && !stays && (staged || node.ready && !is_silent(node, now));
            // Nor does one prove it that lets others go first: its step or domain has not come, or the operator came to
            // it since it was staged. Nor one whose domain or control plane has others out of service.
            let proves = self.is_let_by_order(node) && self.cannot_leave(name, node).is_none();
            self.ahead += usize::from(counts && proves && !node.runs_operator);
            self.staging += usize::from(counts && !staged);
        }
        for (name, node) in waiting {
            match self.ordered(name, node) {
                None => self.stage(name, node, image, now, decision),
                Some(attempt) => self.go_on(name, node, attempt, image, now, decision),
            }
        }
        self.begin_resets(snapshot, now, decision);
        decision.report.used_up = stuck::used_up(&self.budget, &decision.report);
    }

    /// Whom all others wait for, shortly after the image object was made.
    fn first_unheard(
        &self,
        snapshot: &'a Snapshot,
        waiting: &[(&'a String, &'a NodeSeen)],
        now: Timestamp,
        decision: &mut Decision,
    ) -> Option<&'a str> {
        let created = self.policy.created.filter(|created| *created <= now)?;
        let until = created + INTRODUCTION;
        if self.fleet.proven || self.ahead > 0 || now >= until {
            return None;
        }
        let silent = |name: &str| decision.report.nodes.get(name) == Some(&NodeState::AgentSilent);
        let mut all: Vec<(&String, &NodeSeen)> =
            snapshot.nodes.iter().filter(|(name, _)| silent(name)).chain(waiting.iter().copied()).collect();
        all.retain(|(_, node)| self.may_come_soon(node));
        order::sort(self.policy, snapshot, &mut all);
        let (first, _) = all.first().filter(|(name, _)| silent(name))?;
        decision.wake(until);
        Some(first)
    }

    /// The attempt that the node was ordered to stage; none when that attempt is over.
    fn ordered(&self, name: &str, node: &NodeSeen) -> Option<i32> {
        ordered_attempt(self.policy, node).filter(|_| self.fleet.failures.on(name).is_none())
    }

    fn stage(
        &mut self,
        name: &str,
        node: &'a NodeSeen,
        image: &str,
        now: Timestamp,
        decision: &mut Decision,
    ) {
        let enough = self.ahead >= self.policy.max_unavailable.of(self.fleet.size);
        let unproven = !self.fleet.proven && (enough || !self.is_let_by_order(node));
        let hold = self
            .unstaged
            .clone()
            .or_else(|| self.unheard.map(|first| Hold::FirstUnheard(first.to_owned())))
            .or_else(|| unproven.then_some(Hold::Unproven))
            .or_else(|| self.cannot_leave(name, node).filter(|_| !self.fleet.proven))
            .or_else(|| (self.staging >= self.policy.max_staging).then_some(Hold::MaxStaging));
        self.awaited(node);
        if let Some(hold) = hold {
            return decision.say(name, NodeState::WaitsToStage(hold));
        }
        self.staging += 1;
        self.ahead += 1;
        let plan_id = self.policy.plan_id(next_attempt(self.policy, node));
        let action = Action::OrderStage { plan_id, image: image.to_owned(), at: now };
        decision.act(name, NodeState::Staging, action);
    }

    fn go_on(
        &mut self,
        name: &'a str,
        node: &'a NodeSeen,
        attempt: i32,
        image: &str,
        now: Timestamp,
        decision: &mut Decision,
    ) {
        if !as_ordered(self.policy, node) && self.fleet.verdict.stopped.is_none() && !self.policy.dry_run {
            let plan_id = self.policy.plan_id(attempt);
            let action = Action::OrderStage { plan_id, image: image.to_owned(), at: now };
            return decision.act(name, NodeState::staging(node), action);
        }
        if node.phase() != Phase::Staged {
            self.awaited(node);
            return decision.say(name, NodeState::staging(node));
        }
        if let Some(hold) = self.hold(name, node, now, decision) {
            return decision.say(name, NodeState::WaitsToStart(hold));
        }
        self.take_place(name, node);
        decision.act(name, NodeState::Starting, Action::BeginDisruption(record(node, attempt, false, now)));
    }

    /// What keeps a staged node from its turn.
    fn hold(
        &mut self,
        name: &'a str,
        node: &'a NodeSeen,
        now: Timestamp,
        decision: &mut Decision,
    ) -> Option<Hold> {
        if let Some(closed) = &self.closed {
            return Some(closed.clone());
        }
        if !node.ready {
            return Some(Hold::NotReady);
        }
        if !self.steps.allows(node) {
            return self.steps.state.clone().map(Hold::Step);
        }
        if self.policy.one_domain_at_a_time {
            let active = *self.domain.get_or_insert(&node.domain);
            if active != node.domain {
                return Some(Hold::Domain(active.to_owned()));
            }
        }
        let hold = self.budget.hold(name, node);
        if matches!(hold, Some(Hold::Budget { .. } | Hold::DomainBudget { .. })) {
            self.others_wait = true;
        }
        hold.or_else(|| (node.runs_operator && self.others_wait).then_some(Hold::OperatorsNode))
            .or_else(|| self.hold_departure(name, node, now, decision))
    }

    /// What is in the way of a node whose turn it would be. Its place is kept while that is found out.
    fn hold_departure(
        &mut self,
        name: &'a str,
        node: &'a NodeSeen,
        now: Timestamp,
        decision: &mut Decision,
    ) -> Option<Hold> {
        if self.held >= HELD_MAX {
            return Some(Hold::Behind);
        }
        match gates::leave(self.policy, node, now) {
            Leave::Now => None,
            Leave::Ask(held_by) => {
                decision.report.asks.insert(name.to_owned());
                self.take_place(name, node);
                self.others_wait |= !node.runs_operator;
                Some(held_by.map_or(Hold::Asking, Hold::Departure))
            }
            Leave::Held { by, again } => {
                self.held += 1;
                decision.wake(again);
                Some(Hold::Departure(by))
            }
        }
    }

    /// What is handed out to one node is not there for another.
    fn take_place(&mut self, name: &'a str, node: &'a NodeSeen) {
        self.budget.take(name, node);
        self.steps.took(node);
    }

    /// Takes note of a node that will come to its turn soon.
    fn awaited(&mut self, node: &'a NodeSeen) {
        if self.may_come_soon(node) && self.closed.is_none() {
            self.others_wait |= !node.runs_operator;
            self.domain.get_or_insert(&node.domain);
        }
    }

    /// What keeps it from leaving service that holds only some nodes: others are tried in its place.
    fn cannot_leave(&self, name: &str, node: &NodeSeen) -> Option<Hold> {
        self.budget.hold(name, node).filter(|hold| !matches!(hold, Hold::Budget { .. }))
    }

    /// Whether its step and its domain are those that come first.
    fn is_let_by_order(&self, node: &NodeSeen) -> bool {
        let in_domain = self.next_domain.is_none_or(|domain| domain == node.domain);
        self.steps.allows(node) && (in_domain || !self.policy.one_domain_at_a_time)
    }

    /// Whether nothing about the node itself keeps it from its turn.
    fn may_come_soon(&self, node: &NodeSeen) -> bool {
        node.ready && node.trouble().is_none() && self.steps.allows(node)
    }
}

/// The record of a turn that begins now.
pub fn record(node: &NodeSeen, attempt: i32, going_back: bool, now: Timestamp) -> Disruption {
    Disruption {
        since: Time(now),
        found_cordoned: node.unschedulable,
        boot_id_before: node.boot_id.clone(),
        draining_since: None,
        drained_at: None,
        deadline: None,
        healthy_since: None,
        attempt,
        going_back,
        live: node.plan.as_ref().is_some_and(|plan| plan.status.live),
        reset: None,
    }
}

fn is_silent(node: &NodeSeen, now: Timestamp) -> bool {
    let ordered_at = node.plan.as_ref().and_then(|plan| plan.spec.ordered_at);
    let waits = node.plan.as_ref().is_some_and(|plan| plan.spec.target == Some(Target::Staged));
    waits && node.phase() == Phase::Idle && ordered_at.is_some_and(|at| now >= at.0 + SILENT)
}

/// What holds everything.
fn held(policy: &Policy, fleet: &Fleet, decision: &Decision) -> Option<Hold> {
    let stopped = fleet.verdict.stopped.as_ref().map(|_| {
        Hold::Stopped(
            fleet.verdict.rejected.as_ref().map(|rejected| rejected.node.clone()).unwrap_or_default(),
        )
    });
    stopped.or_else(|| told_to_wait(policy, decision))
}

/// That people want nothing begun, whatever became of the image.
fn told_to_wait(policy: &Policy, decision: &Decision) -> Option<Hold> {
    let paused = decision.report.paused.clone().map(Hold::Paused);
    paused.or_else(|| policy.dry_run.then_some(Hold::DryRun))
}

/// What the windows say to a start.
pub fn window(policy: &Policy, fleet: &Fleet, now: Timestamp, decision: &mut Decision) -> Option<Hold> {
    if let Some(wish) = policy.run_now.as_ref().filter(|wish| now < wish.until.0) {
        decision.wake(wish.until.0);
        return None;
    }
    let takes = fleet.takes.unwrap_or_default();
    let (hold, next) = match policy.schedule.at(now) {
        Opening::Open(None) => return None,
        Opening::Open(Some(until)) if until.duration_since(now) >= takes => {
            decision.wake(until);
            return None;
        }
        Opening::Open(Some(_)) => {
            let next = policy.schedule.next_fit(now, takes);
            (Hold::TooShort { takes, next }, next)
        }
        Opening::Closed { because, .. } => {
            let next = policy.schedule.next_fit(now, takes);
            (next.map_or(Hold::TooShort { takes, next }, |_| Hold::Window { because, next }), next)
        }
    };
    decision.report.shut = true;
    decision.report.next_window = next;
    if let Some(next) = next {
        decision.wake(next);
    }
    Some(hold)
}

fn staging_window(policy: &Policy, now: Timestamp, decision: &mut Decision) -> Option<Hold> {
    match policy.staging_schedule.at(now) {
        Opening::Open(until) => {
            if let Some(until) = until {
                decision.wake(until);
            }
            None
        }
        Opening::Closed { next, .. } => {
            if let Some(next) = next {
                decision.wake(next);
            }
            Some(Hold::StagingWindow { next })
        }
    }
}

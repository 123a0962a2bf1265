//! A cluster: what is true, and what the operator's watches show of it, which is older.

use std::collections::BTreeMap;

use evenkeel_crds::{
    ManagedOSImageSpec,
    condition::Time,
    rollout::{Pause, Step},
    rollout_status::RunNow,
};
use evenkeel_operator_core::{
    Action, Checks, Decision, DrainSeen, NodeSeen, NodeState, Policy, Snapshot, check, plan,
    report::{Hold, StepState, StepWait},
    wishes::Approved,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    agent::{Agent, Fate, Fault},
    checks,
    dice::Dice,
    seen, written,
};

/// The image that does not boot on some nodes.
pub const FIRST: &str = "sha256:2000000000000000000000000000000000000000000000000000000000000000";
/// What somebody sets instead.
const SECOND: &str = "sha256:3000000000000000000000000000000000000000000000000000000000000000";

/// A Node and its plan are two objects: each is watched, written and conflicts on its own.
#[derive(Clone, Default)]
struct Versions {
    node: u64,
    plan: u64,
}

pub struct World {
    pub policy: Policy,
    /// What is true.
    pub nodes: BTreeMap<String, NodeSeen>,
    pub agents: BTreeMap<String, Agent>,
    pub now: Timestamp,
    foreign_cordons: BTreeMap<String, bool>,
    versions: BTreeMap<String, Versions>,
    /// What the operator sees, and which versions these are.
    seen: Snapshot,
    seen_versions: BTreeMap<String, Versions>,
    serial: u32,
    /// Which step has a selector.
    steps_by_selector: Option<usize>,
    /// Members of etcd, and whether each serves.
    etcd: BTreeMap<String, bool>,
    /// How far the operator's clock is off. Another one acts after each takeover.
    skew: SignedDuration,
}

/// What came of one look of the operator.
pub struct Look {
    pub quiet: bool,
    pub decision: Decision,
}

fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

/// A policy of which anything may be said.
fn policy(dice: &mut Dice) -> Policy {
    let count = |dice: &mut Dice| match dice.roll(3) {
        0 => json!(1),
        1 => json!(1 + dice.roll(5)),
        _ => json!(format!("{}%", 10 + dice.roll(50))),
    };
    let mut rollout = json!({
        "maxUnavailable": count(dice),
        "soakSeconds": dice.roll(3) * 45,
        "order": if dice.one_in(2) { "ControlPlaneFirst" } else { "ControlPlaneLast" },
        "failurePolicy": {
            "onFirstFailure": if dice.one_in(2) { "Stop" } else { "Continue" },
            "maxFailures": dice.roll(4),
            "action": dice.pick(&["Pause", "RevertFailed", "RevertAll"]),
            "maxAttempts": 1 + dice.roll(3),
            "backoffSeconds": 60 + dice.roll(600),
        },
    });
    if dice.one_in(4) {
        rollout["failurePolicy"]["maxConsecutiveFailures"] = json!(1 + dice.roll(3));
    }
    if dice.one_in(4) {
        rollout["failurePolicy"]["denySeconds"] = json!(600 + dice.roll(3600));
    }
    if dice.one_in(3) {
        rollout["topologyKey"] = json!("zone");
        rollout["oneDomainAtATime"] = json!(dice.one_in(2));
        rollout["maxUnavailablePerDomain"] = count(dice);
    }
    if dice.one_in(4) {
        // Every half hour, for so long that a turn fits in.
        let seconds = 900 + dice.roll(600);
        rollout["windows"] =
            json!([{ "cron": "*/30 * * * *", "durationSeconds": seconds, "timeZone": "Asia/Kathmandu" }]);
    }
    if dice.one_in(8) {
        rollout["exclusions"] = json!([
            { "window": { "cron": "5-59/20 * * * *", "durationSeconds": 300, "timeZone": "UTC" } },
        ]);
    }
    if dice.one_in(3) {
        rollout["steps"] = json!([
            { "nodes": 1, "soakSeconds": dice.roll(600) },
            { "selector": {}, "approval": dice.one_in(2) },
            { "nodes": "50%", "approval": dice.one_in(2), "soakSeconds": dice.roll(300) },
        ]);
    }
    let gates = json!([{ "name": "disk", "nodeCondition": { "type": "DiskOk", "status": "True" } }]);
    let gates = if dice.one_in(3) { gates } else { json!([]) };
    let drained = !dice.one_in(4);
    let spec: ManagedOSImageSpec = serde_json::from_value(json!({
        "osImage": "registry.example/os:1",
        "rollout": rollout,
        "healthGates": gates,
        "cordon": drained || dice.one_in(2),
        "drain": { "enabled": drained, "timeoutSeconds": 600 },
    }))
    .unwrap();
    Policy::new("os", "0a1b2c3d-uid", &spec, Some(&image(FIRST))).unwrap()
}

impl World {
    pub fn new(dice: &mut Dice) -> Self {
        let mut policy = policy(dice);
        checks::rules(&mut policy, dice);
        let by_selector = |step: &Step| step.selector.is_some();
        let steps_by_selector = policy.steps.iter().position(by_selector);
        let mut world = Self {
            policy,
            nodes: BTreeMap::new(),
            agents: BTreeMap::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            foreign_cordons: BTreeMap::new(),
            versions: BTreeMap::new(),
            seen: Snapshot::default(),
            seen_versions: BTreeMap::new(),
            serial: 0,
            steps_by_selector,
            etcd: BTreeMap::new(),
            skew: SignedDuration::ZERO,
        };
        // Now and then a large one, and rarely one that is very large.
        let sides = match dice.roll(4000) {
            0 => 2000,
            1..=10 => 400,
            _ => 20,
        };
        for number in 0..=dice.roll(sides) {
            let fate = match dice.roll(80) {
                0 => Fate::ImageFails,
                1 => Fate::NeverReturns,
                2 => Fate::StagingFails,
                _ => Fate::Fine,
            };
            world.add_node(&format!("n{number:03}"), dice.one_in(4), fate);
        }
        world
    }

    fn add_node(&mut self, name: &str, control_plane: bool, fate: Fate) {
        self.serial += 1;
        let boot_id = format!("boot-{}", self.serial);
        self.agents.insert(name.to_owned(), Agent::new(fate, &boot_id, self.now));
        let number = self.serial % 3;
        let node = NodeSeen {
            selected: true,
            control_plane,
            ready: true,
            boot_id,
            domain: format!("zone-{number}"),
            weight: i32::try_from(self.serial % 2).unwrap(),
            runs_operator: self.serial == 2,
            step: self.steps_by_selector.filter(|_| self.serial.is_multiple_of(4)),
            conditions: [("DiskOk".to_owned(), "True".to_owned())].into(),
            ..NodeSeen::default()
        };
        if control_plane {
            self.etcd.insert(name.to_owned(), true);
        }
        self.nodes.insert(name.to_owned(), node);
        self.touch(name, true, true);
    }

    fn touch(&mut self, name: &str, node: bool, plan: bool) {
        let versions = self.versions.entry(name.to_owned()).or_default();
        versions.node += u64::from(node);
        versions.plan += u64::from(plan);
    }

    /// The watches show something new: everything, or only some of it.
    fn watch(&mut self, dice: &mut Dice, lag: bool) {
        let names: Vec<String> = self.seen.nodes.keys().chain(self.nodes.keys()).cloned().collect();
        for name in names {
            let (node, plan) = (!lag || dice.one_in(2), !lag || dice.one_in(2));
            self.show(&name, node, plan);
        }
    }

    fn show(&mut self, name: &str, node: bool, plan: bool) {
        let Some(truth) = self.nodes.get(name) else {
            if node {
                self.seen.nodes.remove(name);
            }
            return;
        };
        let now = self.versions[name].clone();
        let Some(seen) = self.seen.nodes.get_mut(name) else {
            // A Node that is new to the watch; its plan is always as new as our own last write.
            self.seen.nodes.insert(name.to_owned(), truth.clone());
            self.seen_versions.insert(name.to_owned(), now);
            return;
        };
        let versions = self.seen_versions.entry(name.to_owned()).or_default();
        if node {
            *seen = NodeSeen { plan: seen.plan.clone(), ..truth.clone() };
            versions.node = now.node;
        }
        if plan {
            seen.plan.clone_from(&truth.plan);
            versions.plan = now.plan;
        }
        // Pods are listed at each look, not watched.
        seen.drain = truth.drain.clone();
        // So is all else that is asked, but for taints, which are the Node's.
        let avoided = seen.checks.avoided;
        seen.checks = Checks { avoided, ..truth.checks.clone() };
    }

    /// One look of the operator; some writes get lost, as when it is killed between two of them.
    pub fn decide(&mut self, dice: &mut Dice, faults: bool) -> Look {
        // A new leader has listed everything, and has a clock of its own.
        let takeover = faults && dice.one_in(12);
        if takeover {
            self.skew = SignedDuration::from_secs(i64::try_from(dice.roll(240)).unwrap() - 120);
        }
        self.watch(dice, faults && !takeover);
        self.seen.etcd.clone_from(&self.etcd);
        let now = if faults { self.now + self.skew } else { self.now };
        let decision = plan(&self.policy, &self.seen, now);
        let broken = check::violations(&self.policy, &self.seen, now, &decision.actions);
        assert!(broken.is_empty(), "{broken:?}");
        let summary = decision.report.summary();
        assert!(summary.len() < 2000 && !summary.contains('{'), "{summary}");
        seen::note(&decision);
        if dice.one_in(8) {
            let again = plan(&self.policy, &self.seen, now);
            assert_eq!(decision, again, "the same input must give the same decision");
        }
        for name in &decision.report.asks {
            if let Some(node) = self.nodes.get_mut(name) {
                checks::answer(node, self.now, dice, faults);
            }
        }
        for (name, action) in decision.actions.clone() {
            if faults && dice.one_in(6) {
                continue;
            }
            if !self.apply(&name, action, dice, faults) {
                // A conflict ends the look.
                break;
            }
            self.check();
        }
        if !(faults && dice.one_in(4)) {
            self.policy.rejected.clone_from(&decision.report.rejected);
            self.policy.denied.clone_from(&decision.report.denied);
            self.policy.progress.clone_from(&decision.report.progress);
        }
        if let Some(StepState { waits: StepWait::Approval { token }, .. }) = &decision.report.step
            && (!faults || dice.one_in(10))
        {
            self.policy.approved = Some(Approved { step: token.clone(), by: "night-shift".into() });
        }
        // An answer to what was asked wakes the operator, as a write does.
        Look { quiet: decision.actions.is_empty() && decision.report.asks.is_empty(), decision }
    }

    /// One write. False on a conflict: the object is not what it was when it was seen.
    fn apply(&mut self, name: &str, action: Action, dice: &mut Dice, faults: bool) -> bool {
        if matches!(action, Action::Evict | Action::ForceOut) {
            let stuck = faults && action == Action::Evict && dice.one_in(2);
            if let Some(node) = self.nodes.get_mut(name) {
                node.drain = if stuck {
                    DrainSeen::Remaining { pods: 1, blocked_by: Some("web-pdb".into()) }
                } else {
                    DrainSeen::Done
                };
            }
            return true;
        }
        if !self.nodes.contains_key(name) {
            return false;
        }
        if let (Action::RunHook(hook), Some(node)) = (&action, self.nodes.get_mut(name)) {
            checks::run(node, hook, self.now);
            return true;
        }
        let to_node = matches!(action, Action::Cordon | Action::Uncordon | Action::Avoid(_));
        let (seen, now) = (&self.seen_versions[name], &self.versions[name]);
        if to_node && seen.node != now.node || !to_node && seen.plan != now.plan {
            return false;
        }
        if let Action::BeginDisruption(record) = &action {
            // Nodes that are lost do not keep the others from going back.
            let lost = |name: &String| record.going_back && self.lost(name);
            let turns = self.nodes.iter().filter(|(name, node)| in_turn(node) && !lost(name)).count() + 1;
            let fleet = self.seen.nodes.values().filter(|node| node.selected && !node.gone).count();
            let budget = self.policy.max_unavailable.of(fleet);
            assert!(turns <= budget, "{turns} turns at once, {budget} may be");
        }
        self.write(name, action);
        self.touch(name, to_node, !to_node);
        // The answer to our own write is seen at once.
        self.show(name, to_node, !to_node);
        true
    }

    fn write(&mut self, name: &str, action: Action) {
        let node = self.nodes.get_mut(name).expect("it was just looked up");
        if action == Action::ReleasePlan && node.gone {
            self.nodes.remove(name);
            return;
        }
        let by_others = self.foreign_cordons.get(name).copied().unwrap_or(false);
        written::write(&self.policy, node, action, by_others);
    }

    /// One step of the agents. Each reports on its plan, if it has one. True if anything changed.
    pub fn agents(&mut self, dice: &mut Dice, lag: bool) -> bool {
        let mut changed = false;
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&name).expect("its name was just read");
            if node.gone || lag && dice.one_in(2) {
                continue;
            }
            self.serial += 1;
            let (before, spec) = (node.clone(), node.plan.as_ref().map(|plan| plan.spec.clone()));
            checks::advance(&self.policy, node, self.now, dice, lag);
            let agent = self.agents.get_mut(&name).expect("made with its node");
            let fault = match dice.roll(60) {
                0 | 1 if lag => Fault::Killed,
                2 if lag => Fault::PowerCut,
                _ => Fault::None,
            };
            let boot = format!("boot-{}", self.serial);
            agent.step(node, spec.as_ref(), (&boot, FIRST), fault, self.now);
            if let Some(plan) = &mut node.plan {
                plan.status = agent.status.clone();
            }
            let plan_changed = node.plan != before.plan;
            let node_changed = node.ready != before.ready || node.boot_id != before.boot_id;
            self.touch(&name, node_changed, plan_changed);
            changed |= node_changed || plan_changed;
        }
        changed
    }

    /// Something that nobody planned.
    pub fn disturb(&mut self, dice: &mut Dice) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        let name = dice.pick(&names).clone();
        let is_last = self.nodes.values().filter(|node| !node.gone).count() == 1;
        let node = self.nodes.get_mut(&name).expect("its name was just read");
        match dice.roll(30) {
            0 | 1 => node.ready = false,
            2..=4 => node.ready = true,
            5 | 6 if node.disruption().is_none() && !node.unschedulable => {
                node.unschedulable = true;
                self.foreign_cordons.insert(name.clone(), true);
            }
            7 if !is_last && node.plan.is_some() => node.gone = true,
            7 if !is_last => drop(self.nodes.remove(&name)),
            8 => self.add_node(&format!("x{}", self.serial), false, Fate::Fine),
            9 | 10 => self.policy.pauses.push(Pause {
                owner: "night-shift".into(),
                reason: "deploy".into(),
                until: Some(Time(self.now + SignedDuration::from_mins(3))),
            }),
            11 => node.selected = !node.selected,
            12 => {
                let other = node.claimed_by_other.take();
                node.claimed_by_other = other.is_none().then(|| "older".to_owned());
            }
            13 => node.plan = None,
            14 => self.policy.image = Some(image(SECOND)),
            15 => self.policy.image = Some(image(FIRST)),
            16 => self.policy.image = None,
            18 => self.agents.get_mut(&name).expect("made with its node").lose_memory(),
            19 => self.policy.dry_run = !self.policy.dry_run,
            20 => {
                let until = Time(self.now + SignedDuration::from_mins(5));
                self.policy.run_now = Some(RunNow { by: "alice".into(), until });
            }
            21 => {
                let digest = if dice.one_in(2) { FIRST } else { SECOND };
                self.policy.allowed = if dice.one_in(2) { Some(digest.to_owned()) } else { None };
            }
            22 | 23 => {
                let status = if dice.one_in(2) { "True" } else { "False" };
                node.conditions.insert("DiskOk".into(), status.into());
            }
            24 => {
                let serves = dice.one_in(2);
                self.etcd.entry(name.clone()).and_modify(|ready| *ready = serves);
            }
            17 => self.policy.pull.plain_http = !self.policy.pull.plain_http,
            _ => return,
        }
        if self.nodes.contains_key(&name) {
            self.touch(&name, true, true);
        }
    }

    /// Nobody disturbs any more.
    pub fn calm_down(&mut self, dice: &mut Dice) {
        self.policy.dry_run = false;
        self.etcd.retain(|name, _| self.nodes.contains_key(name));
        self.etcd.values_mut().for_each(|ready| *ready = true);
        if self.policy.image.is_none() || dice.one_in(3) {
            self.policy.image = Some(image(SECOND));
        }
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&name).expect("its name was just read");
            node.selected = true;
            node.claimed_by_other = None;
            node.conditions.insert("DiskOk".into(), "True".into());
            node.ready |= node.disruption().is_none();
            self.touch(&name, true, true);
        }
    }

    /// What must hold of the world itself, whatever was seen and decided.
    fn check(&self) {
        let controllers = self.turns().filter(|node| node.control_plane).count();
        assert!(controllers <= 1, "{controllers} control-plane nodes in their turn at once");
    }

    fn turns(&self) -> impl Iterator<Item = &NodeSeen> {
        self.nodes.values().filter(|node| in_turn(node))
    }

    /// Nodes whose state is nobody's fault here.
    pub fn lost(&self, name: &str) -> bool {
        self.agents[name].fate == Fate::NeverReturns
    }

    pub fn foreign_cordons(&self) -> bool {
        self.foreign_cordons.values().any(|cordoned| *cordoned)
    }
}

fn in_turn(node: &NodeSeen) -> bool {
    node.disruption().is_some() && !node.gone
}

/// Whether a person is asked to do something.
pub fn asks_a_person(decision: &Decision) -> bool {
    let report = &decision.report;
    let asks = |state: &NodeState| {
        matches!(
            state,
            NodeState::Unmanageable
                | NodeState::Lost(_)
                | NodeState::WaitsToStart(Hold::TooShort { next: None, .. })
                | NodeState::WaitsToGoBack(Hold::TooShort { next: None, .. })
        )
    };
    let no_node = matches!(report.step, Some(StepState { waits: StepWait::NoNode, .. }));
    report.stopped.is_some() || report.ended() || report.used_up || no_node || report.nodes.values().any(asks)
}

//! A cluster: what is true, and what the operator's watches show of it, which is older.

use std::collections::BTreeMap;

use evenkeel_crds::{
    ManagedOSImageSpec,
    condition::Time,
    managed_os_image::{Order, Pause},
    node_plan::Target,
    quantity::CountOrPercent,
};
use evenkeel_operator_core::{
    Action, Checks, Decision, DrainSeen, NodeSeen, NodeState, PlanSeen, Policy, Snapshot, check, plan,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    agent::{Agent, Fate},
    checks,
    dice::Dice,
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
}

/// What came of one look of the operator.
pub struct Look {
    pub quiet: bool,
    pub decision: Decision,
}

fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

impl World {
    pub fn new(dice: &mut Dice) -> Self {
        let spec = ManagedOSImageSpec::default();
        let mut policy = Policy::new("os", "0a1b2c3d-uid", &spec, Some(&image(FIRST))).unwrap();
        policy.drain.timeout_seconds = 600;
        policy.max_unavailable = match dice.roll(3) {
            0 => CountOrPercent::Count(1),
            1 => CountOrPercent::Count(1 + u32::try_from(dice.roll(5)).unwrap()),
            _ => CountOrPercent::Percent(10 + u32::try_from(dice.roll(50)).unwrap()),
        };
        policy.drain.enabled = !dice.one_in(4);
        policy.cordon = policy.drain.enabled || dice.one_in(2);
        policy.soak = SignedDuration::from_secs(i64::try_from(dice.roll(3)).unwrap() * 45);
        checks::rules(&mut policy, dice);
        policy.order = if dice.one_in(2) { Order::ControlPlaneFirst } else { Order::ControlPlaneLast };
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
        };
        for number in 0..=dice.roll(20) {
            let fate = match dice.roll(80) {
                0 => Fate::ImageFails,
                1 => Fate::NeverReturns,
                2 => Fate::StagingFails,
                _ => Fate::Fine,
            };
            world.add_node(&format!("n{number:02}"), dice.one_in(4), fate);
        }
        world
    }

    fn add_node(&mut self, name: &str, control_plane: bool, fate: Fate) {
        self.serial += 1;
        let boot_id = format!("boot-{}", self.serial);
        self.agents.insert(name.to_owned(), Agent::new(fate, &boot_id));
        let node = NodeSeen {
            gone: false,
            selected: true,
            control_plane,
            ready: true,
            unschedulable: false,
            cordoned_by: None,
            boot_id,
            conditions: BTreeMap::new(),
            plan: None,
            drain: DrainSeen::NotLookedAt,
            checks: Checks::default(),
            claimed_by_other: None,
        };
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
        self.watch(dice, faults);
        let decision = plan(&self.policy, &self.seen, self.now);
        let broken = check::violations(&self.policy, &self.seen, self.now, &decision.actions);
        assert!(broken.is_empty(), "{broken:?}");
        let again = plan(&self.policy, &self.seen, self.now);
        assert_eq!(decision, again, "the same input must give the same decision");
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
        }
        Look { quiet: decision.actions.is_empty(), decision }
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
        if let Action::BeginDisruption(_) = &action {
            let turns = self.turns().count() + 1;
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
        let policy = &self.policy;
        let node = self.nodes.get_mut(name).expect("it was just looked up");
        if action == Action::ReleasePlan {
            node.plan = None;
            if node.gone {
                self.nodes.remove(name);
            }
            return;
        }
        if action == Action::Cordon {
            node.unschedulable = true;
            node.cordoned_by = Some(policy.name.clone());
            return;
        }
        if let Action::Avoid(avoided) = action {
            node.checks.avoided = avoided;
            return;
        }
        if action == Action::Uncordon {
            node.checks.avoided = false;
            node.unschedulable = self.foreign_cordons.get(name).copied().unwrap_or(false);
            node.cordoned_by = None;
            return;
        }
        let spec = &mut node.plan.get_or_insert_with(PlanSeen::default).spec;
        match action {
            Action::OrderStage { plan_id, image } => {
                spec.plan_id = Some(plan_id);
                spec.image = Some(image);
                spec.target = Some(Target::Staged);
                spec.pull = policy.pull.clone();
                spec.verification.clone_from(&policy.verification);
                spec.revert = None;
                spec.not_after = None;
                spec.commit_deadline_seconds = Some(policy.reboot.commit_deadline_seconds);
            }
            Action::BeginDisruption(record) => spec.disruption = Some(record),
            Action::ApproveReboot { deadline } => {
                spec.target = Some(Target::Booted);
                spec.not_after = Some(Time(deadline));
                spec.disruption.as_mut().unwrap().deadline = Some(Time(deadline));
            }
            Action::MarkDrained(at) => spec.disruption.as_mut().unwrap().drained_at = Some(Time(at)),
            Action::MarkHealthy(since) => spec.disruption.as_mut().unwrap().healthy_since = since.map(Time),
            Action::Commit => spec.target = Some(Target::Committed),
            Action::Revert(revert) => {
                spec.target = Some(Target::Reverted);
                spec.revert = Some(revert);
            }
            Action::EndDisruption => {
                spec.disruption = None;
                node.drain = DrainSeen::NotLookedAt;
            }
            _ => {}
        }
    }

    /// One step of the agents. Each reports on its plan, if it has one.
    pub fn agents(&mut self, dice: &mut Dice, lag: bool) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&name).expect("its name was just read");
            if node.gone || lag && dice.one_in(2) {
                continue;
            }
            self.serial += 1;
            let (before, spec) = (node.clone(), node.plan.as_ref().map(|plan| plan.spec.clone()));
            checks::advance(&self.policy, node, self.now, dice, lag);
            let agent = self.agents.get_mut(&name).expect("made with its node");
            agent.step(node, spec.as_ref(), &format!("boot-{}", self.serial), FIRST, self.now);
            if let Some(plan) = &mut node.plan {
                plan.status = agent.status.clone();
            }
            let plan_changed = node.plan != before.plan;
            let node_changed = node.ready != before.ready || node.boot_id != before.boot_id;
            self.touch(&name, node_changed, plan_changed);
        }
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
            17 => self.policy.pull.plain_http = !self.policy.pull.plain_http,
            _ => return,
        }
        if self.nodes.contains_key(&name) {
            self.touch(&name, true, true);
        }
    }

    /// Nobody disturbs any more.
    pub fn calm_down(&mut self, dice: &mut Dice) {
        if self.policy.image.is_none() || dice.one_in(3) {
            self.policy.image = Some(image(SECOND));
        }
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&name).expect("its name was just read");
            node.selected = true;
            node.claimed_by_other = None;
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
        self.nodes.values().filter(|node| node.disruption().is_some() && !node.gone)
    }

    /// Nodes whose state is nobody's fault here.
    pub fn lost(&self, name: &str) -> bool {
        self.agents[name].fate == Fate::NeverReturns
    }

    pub fn foreign_cordons(&self) -> bool {
        self.foreign_cordons.values().any(|cordoned| *cordoned)
    }
}

/// Whether a person is asked to do something.
pub fn asks_a_person(decision: &Decision) -> bool {
    decision.report.stopped.is_some()
        || decision.report.nodes.values().any(|state| matches!(state, NodeState::Unmanageable))
}

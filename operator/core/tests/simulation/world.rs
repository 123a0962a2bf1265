//! A cluster: what is true, whoever sees it.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_operator_core::{Action, NodeSeen, Policy};
use jiff::{SignedDuration, Timestamp};

use crate::{
    agent::{Agent, Fate, Fault},
    checks,
    dice::{Dice, off_by},
    leader::Leader,
    seen::Seen,
    wanted::{self, FIRST},
    written,
};

/// A Node and its plan are two objects: each is watched, written and conflicts on its own.
#[derive(Clone, Default)]
pub struct Versions {
    pub node: u64,
    pub plan: u64,
}

pub struct World {
    pub policy: Policy,
    pub nodes: BTreeMap<String, NodeSeen>,
    pub agents: BTreeMap<String, Agent>,
    pub now: Timestamp,
    pub versions: BTreeMap<String, Versions>,
    /// Nodes that somebody else has cordoned.
    pub foreign_cordons: BTreeSet<String>,
    /// Nodes with a pod that no budget ever lets go.
    pub blocked: BTreeSet<String>,
    /// Members of etcd, and whether each serves.
    pub etcd: BTreeMap<String, bool>,
    /// What came up so far.
    pub seen: Seen,
    /// Whether who writes has been deposed. What it begins nobody else could know of.
    pub begins_strays: bool,
    strays: BTreeSet<String>,
    serial: u32,
    /// Which step has a selector.
    steps_by_selector: Option<usize>,
}

/// Whether an action is a write to the Node, and not to its plan.
pub fn is_to_node(action: &Action) -> bool {
    matches!(action, Action::Cordon | Action::Uncordon | Action::Avoid(_) | Action::ForgetReset { .. })
}

impl World {
    pub fn new(dice: &mut Dice) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let policy = Policy { created: Some(now), ..wanted::policy(dice) };
        let steps_by_selector = policy.steps.iter().position(|step| step.selector.is_some());
        let mut world = Self {
            policy,
            nodes: BTreeMap::new(),
            agents: BTreeMap::new(),
            now,
            versions: BTreeMap::new(),
            foreign_cordons: BTreeSet::new(),
            blocked: BTreeSet::new(),
            etcd: BTreeMap::new(),
            seen: Seen::default(),
            begins_strays: false,
            strays: BTreeSet::new(),
            serial: 0,
            steps_by_selector,
        };
        // Now and then a large one, and rarely one that is very large.
        let sides = match dice.roll(4000) {
            0 => 2000,
            1..=10 => 400,
            _ => 20,
        };
        for number in 0..=dice.roll(sides) {
            let fate = match dice.roll(96) {
                0 => Fate::ImageFails,
                1 => Fate::NeverReturns,
                2 => Fate::StagingFails,
                3 => Fate::GoesSilent,
                _ => Fate::Fine,
            };
            let name = format!("n{number:03}");
            let skew = if dice.one_in(8) { off_by(dice, 300) } else { SignedDuration::ZERO };
            world.add_node(&name, dice.one_in(4), fate, skew);
            if fate == Fate::GoesSilent {
                let from = world.now + SignedDuration::from_secs(i64::try_from(dice.roll(1600)).unwrap());
                world.agents.get_mut(&name).unwrap().silent = (from, Timestamp::MAX);
            }
            if dice.one_in(96) {
                world.blocked.insert(name);
            }
        }
        world
    }

    /// A machine joins; under a name that was there before, it has nothing of the one that had it but the plan.
    pub fn add_node(&mut self, name: &str, control_plane: bool, fate: Fate, skew: SignedDuration) {
        self.serial += 1;
        let boot_id = format!("boot-{}", self.serial);
        self.agents.insert(name.to_owned(), Agent::new(fate, &boot_id, self.now, skew));
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
            plan: self.nodes.get(name).and_then(|node| node.plan.clone()),
            ..NodeSeen::default()
        };
        if control_plane {
            self.etcd.insert(name.to_owned(), true);
        }
        if node.disruption().is_some() {
            // The turn of the one before it, which nobody counted meanwhile.
            self.strays.insert(name.to_owned());
        }
        self.nodes.insert(name.to_owned(), node);
        self.touch(name, true, true);
    }

    /// A name that no machine has had.
    pub fn new_name(&self) -> String {
        format!("x{}", self.serial)
    }

    /// A Node is deleted. Its plan is all that is left of it, and goes when an operator deletes it.
    pub fn delete_node(&mut self, name: &str) {
        let node = self.node(name);
        let plan = node.plan.take();
        if plan.is_some() {
            *node = NodeSeen { gone: true, selected: node.selected, plan, ..NodeSeen::default() };
        } else {
            self.nodes.remove(name);
        }
        self.foreign_cordons.remove(name);
        self.touch(name, true, true);
    }

    /// A plan is deleted, by an operator or by a person.
    pub fn delete_plan(&mut self, name: &str) {
        let node = self.node(name);
        node.plan = None;
        if node.gone {
            self.nodes.remove(name);
        }
        self.touch(name, false, true);
    }

    pub fn node(&mut self, name: &str) -> &mut NodeSeen {
        self.nodes.get_mut(name).expect("it is one of the nodes")
    }

    pub fn touch(&mut self, name: &str, node: bool, plan: bool) {
        let versions = self.versions.entry(name.to_owned()).or_default();
        versions.node += u64::from(node);
        versions.plan += u64::from(plan);
    }

    /// A write of an operator that the API server takes.
    pub fn write(&mut self, policy: &Policy, name: &str, action: Action) {
        if action == Action::ReleasePlan {
            return self.delete_plan(name);
        }
        let by_others = self.foreign_cordons.contains(name);
        let to_node = is_to_node(&action);
        if matches!(action, Action::EndDisruption(_) | Action::EndReset) {
            self.strays.remove(name);
        }
        written::write(policy, self.node(name), action, by_others);
        self.touch(name, to_node, !to_node);
    }

    /// A turn begins. What must hold of all turns together holds whatever was seen, but for those that a deposed
    /// operator began: it saw nothing of the other's, and only its lease, which runs out, keeps it from doing so.
    pub fn begin(&mut self, leader: &Leader, name: &str, going_back: bool) {
        if self.begins_strays {
            self.seen.add("stray turn");
            self.strays.insert(name.to_owned());
            return;
        }
        self.strays.remove(name);
        // Nodes that are lost do not keep the others from going back.
        let counts = |(other, node): &(&String, &NodeSeen)| {
            in_turn(node)
                && other.as_str() != name
                && !self.strays.contains(*other)
                && !(going_back && self.is_lost(other))
        };
        let policy = &leader.policy;
        let fleet = || leader.view.nodes.values().filter(|node| node.selected && !node.gone);
        let turns = self.nodes.iter().filter(counts).count() + 1;
        let budget = policy.max_unavailable.of(fleet().count());
        assert!(turns <= budget, "{turns} turns at once, {budget} may be");
        let own = &leader.view.nodes[name];
        if let Some(budget) = policy.max_unavailable_per_domain {
            let domain = |(other, node): &(&String, &NodeSeen)| {
                leader.view.nodes.get(*other).map_or(&node.domain, |node| &node.domain).clone()
            };
            let here = |node: &(&String, &NodeSeen)| domain(node) == own.domain;
            let turns = self.nodes.iter().filter(counts).filter(here).count() + 1;
            let budget = budget.of(fleet().filter(|node| node.domain == own.domain).count());
            assert!(turns <= budget, "{turns} turns at once in {}, {budget} may be", own.domain);
        }
        let peers = self.nodes.iter().filter(counts).filter(|(_, node)| node.control_plane).count();
        assert!(!own.control_plane || peers == 0, "{peers} other control-plane nodes are in their turn");
    }

    /// One step of the agents. Each reports on its plan, if it has one. True if anything changed.
    pub fn agents(&mut self, dice: &mut Dice, lag: bool) -> bool {
        let mut changed = false;
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let (node, agent) = (self.nodes.get_mut(&name).unwrap(), self.agents.get_mut(&name).unwrap());
            if node.gone || lag && dice.one_in(2) {
                continue;
            }
            let version = self.versions[&name].plan;
            if !lag && agent.rests(version) && node.disruption().is_none() {
                continue;
            }
            self.serial += 1;
            let (plan_before, ready, boot_before) = (node.plan.clone(), node.ready, node.boot_id.clone());
            checks::advance(&self.policy, node, self.now, dice, lag);
            let fault = match dice.roll(60) {
                0 | 1 if lag => Fault::Killed,
                2 if lag => Fault::PowerCut,
                _ => Fault::None,
            };
            let boot = format!("boot-{}", self.serial);
            let (resets, (kept, left)) = (agent.resets.len(), agent.kept_live);
            agent.step(node, (&boot, FIRST), fault, self.now);
            if agent.resets.len() > resets {
                self.seen.add("reset");
            }
            if agent.kept_live.0 > kept {
                self.seen.add("kept without a reboot");
            }
            if agent.kept_live.1 > left {
                self.seen.add("left without a reboot");
            }
            if lag && agent.flaps(self.now) {
                self.seen.add("flapping");
                node.ready &= dice.one_in(2);
            }
            let plan_changed = node.plan != plan_before;
            let node_changed = node.ready != ready || node.boot_id != boot_before;
            if !plan_changed && !node_changed {
                agent.rest(version);
            }
            self.touch(&name, node_changed, plan_changed);
            changed |= node_changed || plan_changed;
        }
        changed
    }

    /// Nodes whose state is nobody's fault here.
    pub fn is_lost(&self, name: &str) -> bool {
        matches!(self.agents[name].fate, Fate::NeverReturns | Fate::GoesSilent)
    }
}

fn in_turn(node: &NodeSeen) -> bool {
    node.disruption().is_some() && !node.gone
}

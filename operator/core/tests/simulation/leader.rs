//! One operator's process: what it sees of the cluster, which is older than what is true, and its clock.

use std::collections::BTreeMap;

use evenkeel_operator_core::{Checks, NodeSeen, Policy, Snapshot, gates::Departure};
use jiff::SignedDuration;

use crate::{
    dice::Dice,
    world::{Versions, World},
};

pub struct Leader {
    /// The fleet as it sees it.
    pub view: Snapshot,
    /// Which versions these are.
    pub versions: BTreeMap<String, Versions>,
    /// The image object as it sees it: what is wanted, and what was written down of the rollout.
    pub policy: Policy,
    /// What it was answered about nodes that are to leave service.
    pub departures: BTreeMap<String, Departure>,
    /// Whether it has asked no gate yet: the answers are in nobody's keeping but its own.
    pub has_asked: bool,
    /// Plans that it wrote without an answer: it looks them up before it decides anything.
    pub unanswered: Vec<String>,
    /// How far its clock is off.
    pub skew: SignedDuration,
}

impl Leader {
    /// One that has just begun, and has listed everything.
    pub fn new(world: &World, skew: SignedDuration) -> Self {
        let mut leader = Self {
            view: Snapshot::default(),
            versions: BTreeMap::new(),
            policy: world.policy.clone(),
            departures: BTreeMap::new(),
            has_asked: false,
            unanswered: Vec::new(),
            skew,
        };
        for name in world.nodes.keys() {
            leader.show(world, name, true, true);
        }
        leader
    }

    /// The watches show something new: everything, or only some of it.
    pub fn watch(&mut self, world: &World, dice: &mut Dice, lag: bool) {
        if !lag || dice.one_in(2) {
            self.policy.clone_from(&world.policy);
        }
        for name in self.names(world) {
            let (node, plan) = (!lag || dice.one_in(2), !lag || dice.one_in(2));
            self.show(world, &name, node, plan);
        }
    }

    /// Its watches have stopped; what is asked anew at each look is answered all the same.
    pub fn ask_only(&mut self, world: &World) {
        for name in self.names(world) {
            if world.nodes.contains_key(&name) && self.view.nodes.contains_key(&name) {
                self.show(world, &name, false, false);
            }
        }
    }

    fn names(&self, world: &World) -> Vec<String> {
        let gone = self.view.nodes.keys().filter(|name| !world.nodes.contains_key(*name));
        gone.chain(world.nodes.keys()).cloned().collect()
    }

    /// Shows what is true of one node now: its Node, its plan, or only what no watch is needed for.
    pub fn show(&mut self, world: &World, name: &str, node: bool, plan: bool) {
        let Some(truth) = world.nodes.get(name) else {
            if node {
                self.view.nodes.remove(name);
            }
            return;
        };
        let now = &world.versions[name];
        let Some(seen) = self.view.nodes.get_mut(name) else {
            // A Node that is new to the watch; its plan is always as new as our own last write.
            self.view.nodes.insert(name.to_owned(), truth.clone());
            self.versions.insert(name.to_owned(), now.clone());
            return;
        };
        let versions = self.versions.entry(name.to_owned()).or_default();
        if node && versions.node != now.node {
            *seen = NodeSeen { plan: seen.plan.take(), ..truth.clone() };
            versions.node = now.node;
        }
        if plan && versions.plan != now.plan {
            seen.plan.clone_from(&truth.plan);
            versions.plan = now.plan;
        }
        // Pods are listed at each look, not watched.
        seen.drain.clone_from(&truth.drain);
        // So is all else that is asked, but for taints, which are the Node's.
        let avoided = seen.checks.avoided;
        seen.checks = Checks { avoided, ..truth.checks.clone() };
        if !self.has_asked {
            seen.checks.gates.clear();
        }
        if let Some(departure) = self.departures.get(name) {
            seen.checks.departure.clone_from(departure);
        }
    }
}

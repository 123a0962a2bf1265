//! The planner against a fleet that misbehaves: random fleets, policies and faults, the checker after every tick.
//!
//! A failing case prints its seed; `EVENKEEL_SIM_SEED=n` runs that one alone, `EVENKEEL_SIM_CASES=n` sets how many.

use std::{collections::BTreeMap, env};

use evenkeel_crds::{
    ManagedOSImageSpec,
    condition::Time,
    managed_os_image::{Order, Pause},
    node_plan::{Booted, HostFacts, Phase, RollbackCause, RolledBack, Target},
    quantity::CountOrPercent,
};
use evenkeel_operator_core::{
    Action, DrainSeen, NodeSeen, NodeState, PlanSeen, Policy, Snapshot, check, plan,
};
use jiff::{SignedDuration, Timestamp};

const OLD: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";
const NEW: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000002";

/// A small deterministic source of choices (xorshift64*), so that a seed replays exactly.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What is wrong with a node, for good.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Fine,
    ImageFails,
    NeverReturns,
}

struct World {
    policy: Policy,
    snapshot: Snapshot,
    fates: BTreeMap<String, Fate>,
    foreign_cordons: BTreeMap<String, bool>,
    now: Timestamp,
    boots: u32,
}

fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

impl World {
    fn new(dice: &mut Dice) -> Self {
        let mut policy =
            Policy::new("os", "0a1b2c3d-uid", &ManagedOSImageSpec::default(), Some(&image(NEW))).unwrap();
        policy.drain.timeout_seconds = 600;
        policy.max_unavailable = match dice.roll(3) {
            0 => CountOrPercent::Count(1),
            1 => CountOrPercent::Count(1 + u32::try_from(dice.roll(5)).unwrap()),
            _ => CountOrPercent::Percent(10 + u32::try_from(dice.roll(50)).unwrap()),
        };
        policy.drain.enabled = !dice.one_in(4);
        policy.cordon = policy.drain.enabled || dice.one_in(2);
        policy.soak = SignedDuration::from_secs(i64::try_from(dice.roll(3)).unwrap() * 45);
        policy.order = if dice.one_in(2) { Order::ControlPlaneFirst } else { Order::ControlPlaneLast };
        let mut world = Self {
            policy,
            snapshot: Snapshot::default(),
            fates: BTreeMap::new(),
            foreign_cordons: BTreeMap::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            boots: 0,
        };
        for number in 0..=dice.roll(20) {
            let fate = match dice.roll(60) {
                0 => Fate::ImageFails,
                1 => Fate::NeverReturns,
                _ => Fate::Fine,
            };
            world.add_node(&format!("n{number:02}"), dice.one_in(4), fate);
        }
        world
    }

    fn add_node(&mut self, name: &str, control_plane: bool, fate: Fate) {
        self.boots += 1;
        let node = NodeSeen {
            gone: false,
            selected: true,
            control_plane,
            ready: true,
            unschedulable: false,
            cordoned_by: None,
            boot_id: format!("boot-{}", self.boots),
            conditions: BTreeMap::new(),
            plan: None,
            drain: DrainSeen::NotLookedAt,
            claimed_by_other: None,
        };
        self.snapshot.nodes.insert(name.to_owned(), node);
        self.fates.insert(name.to_owned(), fate);
    }

    /// One tick of the planner; some writes get lost, as when the operator is killed between two of them.
    fn decide(&mut self, dice: &mut Dice, faults: bool) -> NodeStates {
        let decision = plan(&self.policy, &self.snapshot, self.now);
        let broken = check::violations(&self.policy, &self.snapshot, self.now, &decision.actions);
        assert!(broken.is_empty(), "{broken:?}");
        let again = plan(&self.policy, &self.snapshot, self.now);
        assert_eq!(decision, again, "the same input must give the same decision");
        let quiet = decision.actions.is_empty();
        for (name, action) in decision.actions {
            if !(faults && dice.one_in(6)) {
                self.apply(&name, action, dice, faults);
            }
        }
        self.check_world();
        NodeStates {
            quiet,
            done: decision.report.done(),
            stopped: decision.report.stopped,
            nodes: decision.report.nodes,
        }
    }

    fn apply(&mut self, name: &str, action: Action, dice: &mut Dice, faults: bool) {
        let policy = &self.policy;
        let node = self.snapshot.nodes.get_mut(name).unwrap();
        let plan = node.plan.get_or_insert_with(PlanSeen::default);
        let spec = &mut plan.spec;
        match action {
            Action::EnsurePlan => {}
            Action::OrderStage { plan_id, image } => {
                spec.plan_id = Some(plan_id);
                spec.image = Some(image);
                spec.target = Some(Target::Staged);
                spec.revert = None;
                spec.commit_deadline_seconds = Some(policy.reboot.commit_deadline_seconds);
            }
            Action::BeginDisruption(record) => spec.disruption = Some(record),
            Action::Cordon => {
                node.unschedulable = true;
                node.cordoned_by = Some(policy.name.clone());
            }
            Action::Evict => {
                let stuck = faults && dice.one_in(2);
                node.drain = if stuck {
                    DrainSeen::Remaining { pods: 1, blocked_by: Some("web-pdb".into()) }
                } else {
                    DrainSeen::Done
                };
            }
            Action::ApproveReboot { deadline } => {
                spec.target = Some(Target::Booted);
                spec.not_after = Some(Time(deadline));
                spec.disruption.as_mut().unwrap().deadline = Some(Time(deadline));
            }
            Action::MarkHealthy(since) => spec.disruption.as_mut().unwrap().healthy_since = since.map(Time),
            Action::Commit => spec.target = Some(Target::Committed),
            Action::Revert(revert) => {
                spec.target = Some(Target::Reverted);
                spec.revert = Some(revert);
            }
            Action::Uncordon => {
                node.unschedulable = self.foreign_cordons.get(name).copied().unwrap_or(false);
                node.cordoned_by = None;
            }
            Action::EndDisruption => {
                spec.disruption = None;
                node.drain = DrainSeen::NotLookedAt;
            }
            Action::ReleasePlan => node.plan = None,
        }
    }

    /// One tick of the agents.
    fn agents(&mut self, dice: &mut Dice, lag: bool) {
        for (name, node) in &mut self.snapshot.nodes {
            if lag && dice.one_in(2) {
                continue;
            }
            self.boots += 1;
            agent(node, self.fates[name], &format!("boot-{}", self.boots), self.now);
        }
    }

    fn disturb(&mut self, dice: &mut Dice) {
        let names: Vec<String> = self.snapshot.nodes.keys().cloned().collect();
        let name = &names[usize::try_from(dice.roll(names.len() as u64)).unwrap()];
        let node = self.snapshot.nodes.get_mut(name).unwrap();
        match dice.roll(12) {
            0 => node.ready = false,
            1 => node.ready = true,
            2 if node.disruption().is_none() => {
                node.unschedulable = true;
                self.foreign_cordons.insert(name.clone(), true);
            }
            3 if names.len() > 1 => {
                self.snapshot.nodes.remove(name);
            }
            4 => self.add_node(&format!("x{}", self.boots), false, Fate::Fine),
            5 => self.policy.pauses.push(Pause {
                owner: "night-shift".into(),
                reason: "deploy".into(),
                until: Some(Time(self.now + SignedDuration::from_mins(3))),
            }),
            _ => {}
        }
    }

    /// What must hold of the world itself, whatever was decided.
    fn check_world(&self) {
        let turns = self.snapshot.nodes.values().filter(|node| node.disruption().is_some());
        let controllers = turns.clone().filter(|node| node.control_plane).count();
        assert!(controllers <= 1, "{controllers} control-plane nodes in their turn at once");
        for (name, node) in &self.snapshot.nodes {
            let ours = node.cordoned_by.is_some();
            assert!(!ours || node.disruption().is_some(), "{name} has our cordon and no record");
        }
    }
}

struct NodeStates {
    quiet: bool,
    done: bool,
    stopped: Option<String>,
    nodes: BTreeMap<String, NodeState>,
}

fn agent(node: &mut NodeSeen, fate: Fate, new_boot: &str, now: Timestamp) {
    let boot_id = node.boot_id.clone();
    let Some(plan) = &mut node.plan else { return };
    let status = &mut plan.status;
    status.host.get_or_insert_with(|| HostFacts { manageable: true, ..HostFacts::default() });
    let booted = status.booted.get_or_insert_with(|| Booted {
        slot: "a".into(),
        digest: OLD.into(),
        version: None,
        boot_id,
    });
    let Some(order) = plan.spec.order() else { return };
    let target = order.target;
    if status.plan_id.as_ref() != Some(&order.plan_id) {
        status.plan_id = Some(order.plan_id.clone());
        status.phase = if booted.digest == order.digest() { Phase::Committed } else { Phase::Staging };
        return;
    }
    let back = |cause| Some(RolledBack { cause, message: "simulated".into(), at: Time(now) });
    match status.phase {
        Phase::Staging => status.phase = Phase::Staged,
        Phase::Staged if target == Target::Reverted => {
            status.phase = Phase::RolledBack;
            status.rolled_back = back(RollbackCause::ClusterGate);
        }
        Phase::Staged if target >= Target::Booted => {
            status.phase = Phase::Rebooting;
            node.ready = false;
        }
        Phase::Rebooting if fate == Fate::NeverReturns => {}
        Phase::Rebooting => {
            new_boot.clone_into(&mut booted.boot_id);
            new_boot.clone_into(&mut node.boot_id);
            if fate == Fate::ImageFails || target == Target::Reverted {
                OLD.clone_into(&mut booted.digest);
                status.phase = Phase::RolledBack;
                status.rolled_back = back(RollbackCause::Bootloader);
                status.bad_digests.push(order.digest().to_owned());
            } else {
                order.digest().clone_into(&mut booted.digest);
                status.phase = Phase::Trial;
            }
        }
        Phase::Trial if target == Target::Committed => status.phase = Phase::Committed,
        Phase::Trial if target == Target::Reverted => {
            status.phase = Phase::Rebooting;
            node.ready = false;
        }
        _ => node.ready = true,
    }
}

fn one(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new(&mut dice);
    for _ in 0..60 {
        world.now += SignedDuration::from_secs(20);
        world.decide(&mut dice, true);
        world.agents(&mut dice, true);
        world.disturb(&mut dice);
    }
    for node in world.snapshot.nodes.values_mut().filter(|node| node.disruption().is_none()) {
        node.ready = true;
    }
    // When faults stop, the rollout ends: it is done, or it stopped with a reason.
    let mut last = world.decide(&mut dice, false);
    let mut quiet_ticks = 0;
    for _ in 0..3000 {
        world.now += SignedDuration::from_secs(20);
        world.agents(&mut dice, false);
        last = world.decide(&mut dice, false);
        quiet_ticks = if last.quiet { quiet_ticks + 1 } else { 0 };
        if last.done {
            return;
        }
        // Longer than any deadline of the policy: 100 ticks of 20 s against 900 s to reboot.
        if quiet_ticks > 100 {
            break;
        }
    }
    let never_returns = |name: &String| world.fates[name] == Fate::NeverReturns;
    for (name, node) in &world.snapshot.nodes {
        assert!(
            never_returns(name) || node.disruption().is_none(),
            "{name} is still in its turn: {:?}",
            last.nodes[name]
        );
        assert!(never_returns(name) || node.cordoned_by.is_none(), "{name} still has our cordon");
    }
    let someone_lost = world.snapshot.nodes.keys().any(never_returns);
    let foreign = world.foreign_cordons.values().any(|cordoned| *cordoned);
    assert!(last.stopped.is_some() || someone_lost || foreign, "neither done nor stopped: {:?}", last.nodes);
}

#[test]
fn every_rule_holds_and_every_rollout_ends() {
    if let Some(seed) = env::var("EVENKEEL_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return one(seed);
    }
    let cases = env::var("EVENKEEL_SIM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000);
    for seed in 0..cases {
        let held = std::panic::catch_unwind(|| one(seed)).is_ok();
        assert!(held, "seed {seed} failed; run it alone with EVENKEEL_SIM_SEED={seed}");
    }
    println!("{cases} schedules held");
}

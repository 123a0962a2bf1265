//! How a schedule ends: at first everything goes wrong, then nothing does any more.

use evenkeel_operator_core::{
    Decision, NodeState,
    report::{Hold, RecoverySlots, StepState, StepWait},
};
use jiff::SignedDuration;

use crate::{
    dice::Dice,
    disturb,
    operators::{Look, Operators},
    seen::Seen,
    world::World,
};

/// Time between two looks while something happens.
const TICK: SignedDuration = SignedDuration::from_secs(20);
/// An operator looks again after so long, whatever it waits for.
const AT_LEAST: SignedDuration = SignedDuration::from_mins(5);
/// Time without anything to do after which nothing will happen any more: longer than any deadline, which are 900 s to
/// reboot, as long again to be given up, and 1800 s to commit; and longer by what a clock was ahead that set them.
const QUIET: SignedDuration = SignedDuration::from_secs(6000);
/// The same where windows come and go: some months without a node that could be started in any.
const QUIET_WINDOWS: SignedDuration = SignedDuration::from_hours(60 * 24);
/// An answer to what was asked wakes the operator.
const ANSWER: SignedDuration = SignedDuration::from_secs(1);

struct Schedule {
    world: World,
    operators: Operators,
    dice: Dice,
}

impl Schedule {
    fn misbehave(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = World::new(&mut dice);
        let mut operators = Operators::new(&world);
        for _ in 0..80 {
            world.now += TICK;
            operators.decide(&mut world, &mut dice);
            world.agents(&mut dice, true);
            disturb::disturb(&mut world, &mut dice);
        }
        Self { world, operators, dice }
    }

    /// Looks until nothing happens any more, or `is_over`. While nothing happens, the next look is when the planner asks
    /// for it.
    fn settle(&mut self, is_over: impl Fn(&Look) -> bool) -> Look {
        let Self { world, operators, dice } = self;
        let mut last = operators.decide_calmly(world, dice);
        let (mut since, mut pause) = (world.now, TICK);
        for _ in 0..5000 + 20 * world.nodes.len() {
            world.now += pause;
            let moved = world.agents(dice, false);
            last = operators.decide_calmly(world, dice);
            if moved || !last.quiet {
                let asks = !last.decision.report.asks.is_empty();
                (since, pause) = (world.now, if asks { ANSWER } else { TICK });
            } else {
                let report = &last.decision.report;
                let wake = report.wake_at.map_or(AT_LEAST, |at| at.duration_since(world.now));
                // Between two windows nothing happens.
                let sleeps = report.shut && world.nodes.values().all(|node| node.disruption().is_none());
                pause = if sleeps { wake.max(TICK) } else { wake.clamp(TICK, AT_LEAST) };
            }
            // A window that will open is not the end.
            let patience = if last.decision.report.next_window.is_some() { QUIET_WINDOWS } else { QUIET };
            if is_over(&last) || world.now.duration_since(since) > patience {
                return last;
            }
        }
        panic!("it goes on for ever: {:?}", last.decision);
    }
}

/// When faults stop, the rollout ends: it is done, or it stopped with a reason.
pub fn of_faults(seed: u64) -> Seen {
    let mut schedule = Schedule::misbehave(seed);
    disturb::calm_down(&mut schedule.world, &mut schedule.dice);
    let last = schedule.settle(|look| {
        look.decision.report.done() && look.decision.report.recovery == RecoverySlots::default()
    });
    let world = schedule.world;
    if last.decision.report.done() {
        // An agent that does not answer any more may have been told before.
        let excused = world.nodes.keys().any(|name| world.is_lost(name));
        let recovery = &last.decision.report.recovery;
        assert!(excused || *recovery == RecoverySlots::default(), "recovery slots are left: {recovery:?}");
        return world.seen;
    }
    let stays = |name: &String| world.is_lost(name) || world.blocked.contains(name);
    for (name, node) in world.nodes.iter().filter(|(name, _)| !stays(name)) {
        let state = last.decision.report.nodes.get(name);
        assert!(node.disruption().is_none(), "{name} is still in its turn: {state:?}");
        let waits = matches!(state, Some(NodeState::WaitsToStage(_) | NodeState::WaitsToStart(_)));
        assert!(waits || !node.checks.avoided, "{name} still has our taint: {state:?}");
        assert!(node.cordoned_by.is_none(), "{name} still has our cordon");
    }
    let excused = world.nodes.keys().any(stays);
    assert!(asks_a_person(&last.decision) || excused, "neither done nor stopped: {:?}", last.decision.report);
    world.seen
}

/// When the image object is deleted in the middle of it all, every node is given back, also those that are lost.
pub fn of_the_image(seed: u64) -> Seen {
    let mut schedule = Schedule::misbehave(seed);
    schedule.world.policy.deleting = true;
    let last = schedule.settle(|look| look.decision.report.released);
    assert!(last.decision.report.released, "nodes are held: {:?}", last.decision.report);
    for (name, node) in &schedule.world.nodes {
        let marked = node.checks.avoided;
        assert!(node.plan.is_none() && node.cordoned_by.is_none() && !marked, "{name} is not given back");
    }
    schedule.world.seen
}

/// Whether a person is asked to do something.
fn asks_a_person(decision: &Decision) -> bool {
    let report = &decision.report;
    let asks = |state: &NodeState| {
        matches!(
            state,
            NodeState::Unmanageable
                | NodeState::Lost(_)
                | NodeState::WaitsToStart(Hold::TooShort { next: None, .. })
                | NodeState::WaitsToGoBack(Hold::TooShort { next: None, .. })
                | NodeState::WaitsToReset(Hold::TooShort { next: None, .. } | Hold::Quorum { ready: 0, .. })
        )
    };
    let no_node = matches!(report.step, Some(StepState { waits: StepWait::NoNode, .. }));
    report.stopped.is_some()
        || report.ended()
        || report.used_up.is_some()
        || no_node
        || report.nodes.values().any(asks)
}

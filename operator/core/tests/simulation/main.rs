//! The planner against a fleet that misbehaves: random fleets, policies and faults, the checker after every look.
//!
//! The planner and the update machine of the nodes are the real ones. What the operator sees is older than what is true, and
//! its writes conflict then. A failing case prints its seed; `EVENKEEL_SIM_FIRST` and `EVENKEEL_SIM_CASES` say which run.

mod agent;
mod checks;
mod dice;
mod seen;
mod world;
mod written;

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use evenkeel_operator_core::NodeState;
use jiff::SignedDuration;

use dice::Dice;
use world::{Look, World, asks_a_person};

/// Time between two looks while something happens.
const TICK: SignedDuration = SignedDuration::from_secs(20);
/// An operator looks again after so long, whatever it waits for.
const AT_LEAST: SignedDuration = SignedDuration::from_mins(5);
/// Time without anything to do after which nothing will happen any more: longer than any deadline, which are 900 s to
/// reboot, as long again to be given up, and 1800 s to commit.
const QUIET: SignedDuration = SignedDuration::from_secs(4000);

fn misbehave(seed: u64) -> (World, Dice) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(&mut dice);
    for _ in 0..80 {
        world.now += TICK;
        world.decide(&mut dice, true);
        world.agents(&mut dice, true);
        world.disturb(&mut dice);
    }
    (world, dice)
}

/// Looks until nothing happens any more, or `is_over`. While nothing happens, the next look is when the planner asks for it.
fn settle(world: &mut World, dice: &mut Dice, is_over: impl Fn(&Look) -> bool) -> Look {
    let mut last = world.decide(dice, false);
    let (mut since, mut pause) = (world.now, TICK);
    for _ in 0..5000 {
        world.now += pause;
        let moved = world.agents(dice, false);
        last = world.decide(dice, false);
        if moved || !last.quiet {
            (since, pause) = (world.now, TICK);
        } else {
            let wake = last.decision.report.wake_at.map(|at| at.duration_since(world.now));
            pause = wake.unwrap_or(AT_LEAST).clamp(TICK, AT_LEAST);
        }
        if is_over(&last) || world.now.duration_since(since) > QUIET {
            return last;
        }
    }
    panic!("it goes on for ever: {:?}", last.decision);
}

/// When faults stop, the rollout ends: it is done, or it stopped with a reason.
fn ends(seed: u64) {
    let (mut world, mut dice) = misbehave(seed);
    world.calm_down(&mut dice);
    let last = settle(&mut world, &mut dice, |look| look.decision.report.done());
    if last.decision.report.done() {
        return;
    }
    for (name, node) in &world.nodes {
        let state = last.decision.report.nodes.get(name);
        assert!(world.lost(name) || node.disruption().is_none(), "{name} is still in its turn: {state:?}");
        let waits = matches!(state, Some(NodeState::WaitsToStage(_) | NodeState::WaitsToStart(_)));
        assert!(world.lost(name) || waits || !node.checks.avoided, "{name} still has our taint: {state:?}");
        assert!(world.lost(name) || node.cordoned_by.is_none(), "{name} still has our cordon");
    }
    let excused = world.nodes.keys().any(|name| world.lost(name)) || world.foreign_cordons();
    assert!(asks_a_person(&last.decision) || excused, "neither done nor stopped: {:?}", last.decision.report);
}

/// When the image object is deleted in the middle of it all, every node is given back, also those that are lost.
fn lets_go(seed: u64) {
    let (mut world, mut dice) = misbehave(seed);
    world.policy.deleting = true;
    let last = settle(&mut world, &mut dice, |look| look.decision.report.released);
    assert!(last.decision.report.released, "nodes are held: {:?}", last.decision.report);
    for (name, node) in &world.nodes {
        let marked = node.checks.avoided;
        assert!(node.plan.is_none() && node.cordoned_by.is_none() && !marked, "{name} is not given back");
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs the seeds that were asked for, on every processor.
fn for_seeds(what: &str, run: fn(u64)) {
    let first = number("EVENKEEL_SIM_FIRST").unwrap_or(0);
    let cases = number("EVENKEEL_SIM_CASES").unwrap_or(60);
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + cases {
                return;
            }
            let held = std::panic::catch_unwind(|| run(seed)).is_ok();
            assert!(held, "seed {seed} failed; run it alone with `make sim FIRST={seed} SEEDS=1`");
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    let seconds = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = cases as f64 / seconds;
    println!("{cases} schedules {what} held, {rate:.0} in a second");
    seen::show(cases);
}

#[test]
fn every_rule_holds_and_every_rollout_ends() {
    for_seeds("to their end", ends);
}

#[test]
fn every_rule_holds_and_every_deletion_ends() {
    for_seeds("to a deletion", lets_go);
}

//! One look of an operator: what it sees, decides and writes, and what may come in between.

use evenkeel_crds::rollout_status::RunNow;
use evenkeel_operator_core::{
    Action, Decision, DrainSeen, Policy, check, plan,
    report::{StepState, StepWait},
    wishes::Approved,
};
use jiff::Timestamp;

use crate::{
    checks,
    dice::Dice,
    leader::Leader,
    operators::Look,
    world::{World, is_to_node},
};

/// What came of a write.
enum Written {
    Done,
    /// The object is not what it was when it was read.
    Conflict,
}

/// A look in which writes fail, and in which the operator may be killed between any two of them. True if it was.
pub fn disturbed(leader: &mut Leader, world: &mut World, dice: &mut Dice) -> (bool, Look) {
    let decision = decide(leader, world, dice);
    answer(leader, world, dice, &decision, true);
    // Sixteen are written at once: any may be the first.
    let mut actions = decision.actions.clone();
    let first = dice.roll(actions.len().max(1) as u64);
    actions.rotate_left(usize::try_from(first).unwrap());
    let end = dice.one_in(8).then(|| dice.roll(actions.len() as u64 + 1));
    let killed = end.is_some() && dice.one_in(2);
    let end = end.map_or(actions.len(), |end| usize::try_from(end).unwrap());
    for (name, action) in actions.into_iter().take(end) {
        if !dice.one_in(12) {
            write(leader, world, dice, (&name, action), true);
        }
    }
    if killed {
        world.seen.add("operator killed");
    } else if !dice.one_in(4) {
        write_status(leader, world, &decision);
    }
    if dice.one_in(10) {
        approve(world, &decision);
    }
    (killed, Look { quiet: false, decision })
}

/// A look in which all goes well.
pub fn calm(leader: &mut Leader, world: &mut World, dice: &mut Dice) -> Look {
    let decision = decide(leader, world, dice);
    answer(leader, world, dice, &decision, false);
    for (name, action) in decision.actions.clone() {
        let written = write(leader, world, dice, (&name, action), false);
        assert!(matches!(written, Written::Done), "{name} changed under a look that saw everything");
    }
    write_status(leader, world, &decision);
    approve(world, &decision);
    // Pods that never leave are asked again and again.
    let stays = |(name, action): &(String, Action)| *action == Action::Evict && world.blocked.contains(name);
    let asks = decision.report.asks.iter().any(|name| !world.blocked.contains(name));
    // An answer to what was asked wakes the operator, as a write does.
    Look { quiet: !asks && decision.actions.iter().all(stays), decision }
}

fn decide(leader: &mut Leader, world: &mut World, dice: &mut Dice) -> Decision {
    leader.view.etcd.clone_from(&world.etcd);
    for name in std::mem::take(&mut leader.unanswered) {
        leader.show(world, &name, false, true);
    }
    let now = world.now + leader.skew;
    let decision = plan(&leader.policy, &leader.view, now);
    leader.has_asked = true;
    let broken = check::violations(&leader.policy, &leader.view, now, &decision.actions);
    assert!(broken.is_empty(), "{broken:?}");
    let summary = decision.report.summary();
    assert!(summary.len() < 2000 && !summary.contains('{'), "{summary}");
    world.seen.note(&decision);
    if dice.one_in(8) {
        let again = plan(&leader.policy, &leader.view, now);
        assert_eq!(decision, again, "the same input must give the same decision");
    }
    decision
}

fn answer(leader: &mut Leader, world: &World, dice: &mut Dice, decision: &Decision, faults: bool) {
    let now = world.now + leader.skew;
    for name in &decision.report.asks {
        let held = world.blocked.contains(name) || faults && dice.one_in(3);
        leader.departures.insert(name.clone(), checks::departure(held, now));
    }
}

/// One write, and that its answer is seen at once.
fn write(
    leader: &mut Leader,
    world: &mut World,
    dice: &mut Dice,
    (name, action): (&str, Action),
    faults: bool,
) -> Written {
    if !world.nodes.contains_key(name) {
        return Written::Conflict;
    }
    match &action {
        Action::Evict | Action::ForceOut => {
            let stuck = world.blocked.contains(name) || faults && dice.one_in(2);
            if world.blocked.contains(name) {
                world.seen.add("pods that stay");
            }
            let drain = if stuck && action == Action::Evict {
                DrainSeen::Remaining { pods: 1, blocked_by: Some("web-pdb".into()) }
            } else {
                DrainSeen::Done
            };
            world.node(name).drain = drain;
            return Written::Done;
        }
        Action::RunHook(hook) => {
            let now = world.now + leader.skew;
            checks::run(world.node(name), hook, now);
            return Written::Done;
        }
        _ => {}
    }
    let to_node = is_to_node(&action);
    let (seen, now) = (&leader.versions[name], &world.versions[name]);
    if to_node && seen.node != now.node || !to_node && seen.plan != now.plan {
        world.seen.add("conflict");
        return Written::Conflict;
    }
    if let Action::BeginDisruption(record) = &action {
        world.begin(leader, name, record.going_back);
    }
    world.write(&leader.policy, name, action);
    if faults && dice.one_in(20) {
        world.seen.add("lost answer");
        leader.unanswered.push(name.to_owned());
        return Written::Conflict;
    }
    leader.show(world, name, to_node, !to_node);
    Written::Done
}

/// Writes down what has to be known of the rollout, unless the image object changed since it was read.
fn write_status(leader: &mut Leader, world: &mut World, decision: &Decision) {
    if leader.policy != world.policy {
        world.seen.add("conflict of the status");
        return;
    }
    let report = &decision.report;
    for policy in [&mut world.policy, &mut leader.policy] {
        policy.rejected.clone_from(&report.rejected);
        policy.denied.clone_from(&report.denied);
        policy.progress.clone_from(&report.progress);
    }
}

/// A person says that the rollout goes on.
fn approve(world: &mut World, decision: &Decision) {
    if let Some(StepState { waits: StepWait::Approval { token }, .. }) = &decision.report.step {
        world.policy.approved = Some(Approved { step: token.clone(), by: "night-shift".into() });
    }
}

/// A person's wish that windows are ignored.
pub fn run_now(policy: &mut Policy, until: Timestamp) {
    policy.run_now = Some(RunNow { by: "alice".into(), until: evenkeel_crds::condition::Time(until) });
}

//! The update machine against a model of a machine that is killed and loses power at any point.

mod world;

use evenkeel_crds::node_plan::{Phase, RollbackCause, Target};
use evenkeel_node_agent_core::{
    journal::{Journal, Step},
    machine::{Action, EntryFact, TRIAL_TRIES, next, resume},
    slot_check::SlotCheck,
};
use jiff::SignedDuration;
use proptest::prelude::*;

use world::{Fault, Image, NEW, OLD, World};

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::KilledBeforeAction),
        1 => Just(Fault::KilledAfterAction),
        1 => Just(Fault::PowerCut),
        1 => Just(Fault::ActionFails),
        1 => Just(Fault::OrderedAnew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn when_faults_stop_every_image_ends_where_it_belongs(
        image in prop_oneof![Just(Image::Good), Just(Image::Panics), Just(Image::FailsItsCheck)],
        faults in prop::collection::vec(fault(), 0..30),
    ) {
        let mut world = World::new(image);
        let cuts = faults.iter().filter(|fault| matches!(fault, Fault::PowerCut)).count();
        for fault in faults {
            world.turn(fault);
        }
        for _ in 0..20 {
            world.turn(Fault::None);
        }
        match world.phase() {
            Phase::Committed => {
                prop_assert_eq!(image, Image::Good);
                prop_assert_eq!(world.running, "b");
                prop_assert_eq!(world.slots["b"].1, EntryFact::Permanent);
            }
            // A new order does not try an image again that failed under the one before.
            Phase::RolledBack | Phase::Failed => {
                prop_assert!(world.phase() == Phase::RolledBack || world.orders_given > 1);
                prop_assert!(image != Image::Good || cuts >= TRIAL_TRIES as usize);
                prop_assert_eq!(world.running, "a");
                prop_assert!(world.journal.is_bad(NEW));
            }
            other => prop_assert!(false, "ended in {:?}", other),
        }
    }
}

fn turns(world: &mut World, count: usize) {
    for _ in 0..count {
        world.turn(Fault::None);
    }
}

#[test]
fn a_failed_host_check_is_named_as_the_cause() {
    let mut world = World::new(Image::FailsItsCheck);
    turns(&mut world, 16);
    let Step::RolledBack { rolled_back } = &world.journal.attempt.as_ref().unwrap().step else {
        panic!("the node must be back: {:?}", world.journal)
    };
    assert_eq!(rolled_back.cause, RollbackCause::HostCheck);
    assert_eq!(rolled_back.message, "10-broken exited with 1");
}

#[test]
fn a_panic_is_the_boot_loaders_cause() {
    let mut world = World::new(Image::Panics);
    turns(&mut world, 16);
    let Step::RolledBack { rolled_back } = &world.journal.attempt.as_ref().unwrap().step else {
        panic!("the node must be back: {:?}", world.journal)
    };
    assert_eq!(rolled_back.cause, RollbackCause::Bootloader);
}

#[test]
fn the_same_digest_again_does_nothing() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let boots = world.boots;
    let mut orders = world.orders();
    orders.order.plan_id = "p2".into();
    orders.order.target = Target::Booted;
    let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
    assert_eq!(action, Action::Wait);
    assert_eq!(journal.attempt.unwrap().step, Step::Committed);
    assert_eq!(world.boots, boots);
}

#[test]
fn an_expired_approval_neither_arms_nor_reboots() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 1);
    let mut orders = world.orders();
    orders.order.target = Target::Booted;
    orders.not_after = Some(world.now - SignedDuration::from_secs(1));
    let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
    assert_eq!(action, Action::Wait);
    assert_eq!(journal.attempt.unwrap().error.unwrap().reason, "ApprovalExpired");
}

/// A machine that began anew does not know what became of its order, and cannot boot what it would write.
#[test]
fn a_machine_that_forgot_writes_nothing_for_an_approval_that_is_over() {
    let mut world = World::new(Image::Panics);
    turns(&mut world, 16);
    let mut orders = world.orders();
    for target in [Target::Booted, Target::Committed] {
        orders.order.target = target;
        orders.not_after = Some(world.now - SignedDuration::from_secs(1));
        let (journal, action) = next(&Journal::default(), Some(&orders), &world.facts());
        assert_eq!((journal.attempt, action), (None, Action::Wait));
    }
    orders.not_after = Some(world.now + SignedDuration::from_secs(60));
    let (_, action) = next(&Journal::default(), Some(&orders), &world.facts());
    assert!(matches!(action, Action::Stage { .. }), "it may still come up in time: {action:?}");
    orders.order.target = Target::Reverted;
    let (journal, action) = next(&Journal::default(), Some(&orders), &world.facts());
    assert_eq!(action, Action::Wait);
    assert!(matches!(journal.attempt.unwrap().step, Step::RolledBack { .. }));
}

#[test]
fn a_bad_digest_is_refused_under_a_new_plan() {
    let mut world = World::new(Image::Panics);
    turns(&mut world, 16);
    let mut orders = world.orders();
    orders.order.plan_id = "p2".into();
    let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
    assert_eq!(action, Action::Wait);
    assert_eq!(journal.attempt.unwrap().error.unwrap().reason, "DigestFailedBefore");
}

/// An agent that did not know of cloud-configs took the order for the image alone, which the machine runs.
#[test]
fn an_order_of_which_a_part_was_not_known_is_begun_anew() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let mut orders = world.orders();
    assert_eq!(next(&world.journal, Some(&orders), &world.facts()).1, Action::Wait);
    orders.order.cloud_config = Some("0123456789abcdef".repeat(4));
    orders.order.target = Target::Staged;
    let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
    assert!(matches!(action, Action::Stage { slot, .. } if slot == "a"));
    assert_eq!(journal.attempt.unwrap().digest, format!("{NEW}+0123456789abcdef"));
}

/// Slot b was kept; the cluster wants it back, and slot a is known to be damaged, from the start or found on the way.
#[test]
fn a_kept_slot_is_not_left_for_one_that_is_known_to_be_damaged() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let mut orders = world.orders();
    orders.order.target = Target::Reverted;
    let mut damaged = world.facts();
    let a = &mut damaged.slots[0];
    a.check = Some(SlotCheck { digest: OLD.into(), at: world.now, damaged_at: Some(4096) });
    let (on_the_way, action) = next(&world.journal, Some(&orders), &world.facts());
    assert!(matches!(action, Action::RevertCommitted { to, .. } if to == "a"));
    for journal in [&world.journal, &on_the_way] {
        let (journal, action) = next(journal, Some(&orders), &damaged);
        let attempt = journal.attempt.unwrap();
        assert_eq!((action, attempt.step), (Action::Wait, Step::Committed));
        assert_eq!(attempt.error.unwrap().reason, "NothingToRevertTo");
    }
}

/// The same where an image lies in slot a that was staged and never kept: nothing that may boot for ever.
#[test]
fn a_kept_slot_is_not_left_for_an_image_that_nobody_ever_kept() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let mut orders = world.orders();
    orders.order.target = Target::Reverted;
    for entry in [EntryFact::Absent, EntryFact::Trial { left: 0 }, EntryFact::Trial { left: 3 }] {
        world.slots.insert("a", (Some("sha256:3e3"), entry, 0));
        let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
        let attempt = journal.attempt.unwrap();
        assert_eq!((action, attempt.step), (Action::Wait, Step::Committed), "{entry:?}");
        assert_eq!(attempt.error.unwrap().reason, "NothingToRevertTo");
    }
}

/// The power went while the entry of slot a was written anew: it was kept, and is gone back to all the same.
#[test]
fn a_way_back_that_was_begun_is_gone_to_its_end() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let mut orders = world.orders();
    orders.order.target = Target::Reverted;
    let (begun, action) = next(&world.journal, Some(&orders), &world.facts());
    let back = Action::RevertCommitted { to: "a".into(), from: "b".into() };
    assert_eq!(action, back);
    world.slots.insert("a", (Some(OLD), EntryFact::Absent, 0));
    assert_eq!(next(&begun, Some(&orders), &world.facts()).1, back);
    // Another image in its place is not what was kept.
    world.slots.insert("a", (Some("sha256:3e3"), EntryFact::Absent, 0));
    let attempt = next(&begun, Some(&orders), &world.facts()).0.attempt.unwrap();
    assert_eq!(attempt.error.unwrap().reason, "NothingToRevertTo");
}

/// Slot b is kept, runs, and is known to be damaged; slot a is all that is left to go back to.
#[test]
fn an_order_does_not_cost_the_only_good_slot_behind_a_damaged_one() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    let mut facts = world.facts();
    let b = &mut facts.slots[1];
    b.generation = 1;
    b.check = Some(SlotCheck { digest: NEW.into(), at: world.now, damaged_at: Some(4096) });
    let mut orders = world.orders();
    orders.order.plan_id = "p2".into();
    orders.order.image = "os@sha256:3e3".into();
    let (journal, action) = next(&world.journal, Some(&orders), &facts);
    let attempt = journal.attempt.unwrap();
    let error = attempt.error.unwrap();
    assert_eq!((action, attempt.step), (Action::Wait, Step::Failed));
    assert_eq!((error.reason.as_str(), error.retryable), ("KeptSlotDamaged", false));
    assert!(error.message.contains("rollback --to a"), "{}", error.message);
    // What lies there is read again and not written.
    orders.order.image = format!("os@{OLD}");
    let (_, action) = next(&world.journal, Some(&orders), &facts);
    assert!(matches!(action, Action::Stage { slot, .. } if slot == "a"));
}

/// A machine whose trial in slot b was given up, and which has not rebooted yet: slot a is all that boots.
fn given_up() -> World {
    let mut world = World::new(Image::Good);
    world.slots.insert("b", (Some(NEW), EntryFact::Absent, 0));
    world.running = "b";
    world
}

#[test]
fn a_trial_that_was_given_up_is_left_before_anything_else_begins() {
    let world = given_up();
    for image in [NEW, "sha256:3e3"] {
        let mut orders = world.orders();
        orders.order.plan_id = "p2".into();
        orders.order.image = format!("os@{image}");
        let (journal, action) = next(&world.journal, Some(&orders), &world.facts());
        assert_eq!((journal.attempt, action), (None, Action::Wait), "{image}");
    }
}

#[test]
fn an_attempt_whose_slot_came_into_use_begins_anew_in_another_one() {
    let mut world = World::new(Image::Good);
    world.slots.insert("b", (Some(NEW), EntryFact::Permanent, 0));
    let mut orders = world.orders();
    orders.order.image = "os@sha256:3e3".into();
    let staging = next(&world.journal, Some(&orders), &world.facts()).0;
    assert_eq!(staging.attempt.as_ref().unwrap().slot, "b");
    // Killed before it wrote anything; then a person booted slot b from the menu.
    world.running = "b";
    let resumed = resume(&staging, Some(&orders), &world.facts());
    let (journal, action) = next(&resumed, Some(&orders), &world.facts());
    assert!(matches!(action, Action::Stage { slot, .. } if slot == "a"));
    assert_eq!(journal.attempt.unwrap().slot, "a");
    // Had it been given up instead, slot a would be all that boots.
    world.slots.get_mut("b").unwrap().1 = EntryFact::Absent;
    assert_eq!(resume(&journal_for_a(&staging), Some(&orders), &world.facts()).attempt, None);
}

#[test]
fn a_trial_that_was_armed_for_an_order_that_is_gone_is_disarmed() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 1);
    world.turn(Fault::KilledAfterAction);
    assert!(matches!(world.journal.attempt.as_ref().unwrap().step, Step::Activating { .. }));
    world.order_anew();
    let (_, action) = next(&world.journal, Some(&world.orders()), &world.facts());
    assert_eq!(action, Action::Disarm { slot: "b".into() });
    turns(&mut world, 16);
    assert_eq!(world.phase(), Phase::Committed);
    assert_eq!(world.journal.attempt.unwrap().plan_id, "p2");
}

#[test]
fn a_kept_slot_that_an_order_that_is_gone_was_leaving_is_left() {
    let mut world = World::new(Image::Good);
    turns(&mut world, 16);
    world.order_anew();
    let attempt = world.journal.attempt.as_mut().unwrap();
    attempt.step = Step::Reverting { cause: RollbackCause::User, message: "go back".into(), to: None };
    let (_, action) = next(&world.journal, Some(&world.orders()), &world.facts());
    assert_eq!(action, Action::RevertCommitted { to: "a".into(), from: "b".into() });
}

fn journal_for_a(journal: &Journal) -> Journal {
    let mut journal = journal.clone();
    journal.attempt.as_mut().expect("it was begun").slot = "a".into();
    journal
}

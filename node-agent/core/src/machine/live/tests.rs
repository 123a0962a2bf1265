use evenkeel_crds::node_plan::{Order, Revert, RollbackCause, RolledBack, Target};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    live_config::{Kept, LiveConfig, Order as Asked, Said, Setting},
    machine::{Outcome, SlotContent, SlotFact, next, record, resume},
};

const DIGEST: &str = "sha256:01d";
const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const WANTED: &str = "sha256:01d+0123456789abcdef";

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn setting(release: &str) -> Setting {
    Setting { release: release.into(), document: None }
}

fn facts() -> Facts {
    let content = SlotContent {
        image: format!("os@{DIGEST}"),
        digest: DIGEST.into(),
        version: "1".into(),
        written_at: now(),
    };
    let kept = SlotFact { content: Some(content), entry: EntryFact::Permanent, ..SlotFact::empty("a") };
    Facts {
        running: Some(RunningSlot { name: "a".into(), digest: DIGEST.into(), boot_id: "one".into() }),
        slots: vec![kept, SlotFact::empty("b")],
        recovery: None,
        reset_requested: None,
        reset_done: None,
        live: LiveConfig { supported: true, ..LiveConfig::default() },
        verdict: None,
        host_checks_passed: false,
        now: now(),
    }
}

fn orders(target: Target) -> Orders {
    let revert = Revert { cause: RollbackCause::ClusterGate, message: "not healthy".into() };
    Orders {
        order: Order {
            plan_id: "p".into(),
            image: format!("os@{DIGEST}"),
            cloud_config: Some(SHA256.into()),
            target,
        },
        not_after: Some(now() + SignedDuration::from_mins(10)),
        revert: (target == Target::Reverted).then_some(revert),
        live: true,
        live_turn: target > Target::Staged,
    }
}

/// What the host was asked, and said.
fn said(facts: &mut Facts, stand: Option<Stand>) {
    let asked = Asked {
        id: "p.1000000".into(),
        boot_id: "one".into(),
        wanted: setting(WANTED),
        before: setting(DIGEST),
        deadline_seconds: 60,
        api_server: None,
        withdrawn: false,
    };
    facts.live.order.get_or_insert(asked);
    facts.live.said = stand.map(|stand| Said { id: "p.1000000".into(), boot_id: "one".into(), stand });
    facts.host_checks_passed = facts.live.is_on_trial(facts.running.as_ref().unwrap());
}

struct Agent(Journal);

impl Agent {
    /// One turn in which nothing goes wrong.
    fn turn(&mut self, target: Target, facts: &Facts) -> Action {
        self.follow(&orders(target), facts)
    }

    fn follow(&mut self, orders: &Orders, facts: &Facts) -> Action {
        self.0 = resume(&self.0, Some(orders), facts);
        let (journal, action) = next(&self.0, Some(orders), facts);
        self.0 = match action {
            Action::Wait | Action::WaitUntil(_) => journal,
            _ => record(&journal, &action, Outcome::Done, facts),
        };
        action
    }

    fn step(&self) -> &Step {
        &self.0.attempt.as_ref().unwrap().step
    }

    fn back(&self) -> &RolledBack {
        match self.step() {
            Step::RolledBack { rolled_back } => rolled_back,
            step => panic!("it is at {step:?}"),
        }
    }
}

/// An agent whose host has applied what was wanted.
fn on_trial() -> (Agent, Facts) {
    let (mut agent, mut facts) = (Agent(Journal::default()), facts());
    assert_eq!(agent.turn(Target::Staged, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Staged);
    assert_eq!(agent.turn(Target::Booted, &facts), Action::Live(LiveAction::Apply));
    said(&mut facts, Some(Stand::Applied { at: 7 }));
    assert_eq!(agent.turn(Target::Booted, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Trial);
    (agent, facts)
}

fn keep(facts: &mut Facts) {
    let kept =
        Kept { slot: "a".into(), under: DIGEST.into(), setting: setting(WANTED), before: setting(DIGEST) };
    facts.live.kept = Some(kept);
}

#[test]
fn what_was_applied_is_kept_once_the_cluster_says_so() {
    let (mut agent, mut facts) = on_trial();
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Live(LiveAction::Keep));
    keep(&mut facts);
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Committed);
    // It was killed between the deed and its note.
    let (mut agent, mut facts) = on_trial();
    keep(&mut facts);
    assert_eq!(agent.turn(Target::Booted, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Committed);
    // Everything that it remembers is lost: what runs is what is wanted.
    let mut agent = Agent(Journal::default());
    assert_eq!(agent.turn(Target::Staged, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Committed);
}

#[test]
fn a_host_that_gives_it_up_ends_the_attempt_with_its_cause() {
    for (cause, bad) in [(RollbackCause::HostCheck, true), (RollbackCause::ClusterUnreachable, false)] {
        let (mut agent, mut facts) = on_trial();
        let message = "because".to_owned();
        said(&mut facts, Some(Stand::GivenUp { cause, message }));
        assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
        assert_eq!((agent.back().cause, agent.0.is_bad(WANTED)), (cause, bad));
    }
}

#[test]
fn the_cluster_takes_a_trial_back_and_what_was_kept() {
    let (mut agent, mut facts) = on_trial();
    assert_eq!(agent.turn(Target::Reverted, &facts), Action::Live(LiveAction::Withdraw));
    facts.live.order.as_mut().unwrap().withdrawn = true;
    facts.now += SignedDuration::from_mins(1);
    assert!(matches!(agent.turn(Target::Reverted, &facts), Action::WaitUntil(_)), "the host is at it");
    said(&mut facts, Some(Stand::Withdrawn));
    assert_eq!(agent.turn(Target::Reverted, &facts), Action::Wait);
    assert_eq!(agent.back().cause, RollbackCause::ClusterGate);

    let (mut agent, mut facts) = on_trial();
    keep(&mut facts);
    agent.turn(Target::Committed, &facts);
    assert_eq!(agent.turn(Target::Reverted, &facts), Action::Live(LiveAction::GoBack));
    facts.live.order.as_mut().unwrap().withdrawn = true;
    facts.live.kept.as_mut().unwrap().setting = setting(DIGEST);
    said(&mut facts, Some(Stand::Withdrawn));
    assert_eq!(agent.turn(Target::Reverted, &facts), Action::Wait);
    assert_eq!(agent.back().cause, RollbackCause::ClusterGate);
}

#[test]
fn a_reboot_takes_a_trial_away_and_it_is_tried_three_times() {
    let (mut agent, mut facts) = on_trial();
    for boot in ["two", "three"] {
        facts.running.as_mut().unwrap().boot_id = boot.into();
        facts.host_checks_passed = false;
        assert_eq!(agent.turn(Target::Booted, &facts), Action::Live(LiveAction::Apply), "in boot {boot}");
        facts.live.order.as_mut().unwrap().boot_id = boot.into();
        facts.live.said.as_mut().unwrap().boot_id = boot.into();
        agent.turn(Target::Booted, &facts);
        assert_eq!(agent.step(), &Step::Trial);
    }
    facts.running.as_mut().unwrap().boot_id = "four".into();
    assert_eq!(agent.turn(Target::Booted, &facts), Action::Wait);
    assert_eq!(agent.back().cause, RollbackCause::Bootloader);
    assert!(agent.0.is_bad(WANTED));
}

/// A node that was taken out of service is to reboot, one that was not must not: what was approved of is in the order.
#[test]
fn an_approval_for_the_other_way_is_none() {
    let facts = facts();
    let mut agent = Agent(Journal::default());
    agent.turn(Target::Staged, &facts);
    let for_a_reboot = Orders { live_turn: false, ..orders(Target::Booted) };
    assert_eq!(agent.follow(&for_a_reboot, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Staged);

    let with_a_reboot = Orders { live: false, ..orders(Target::Staged) };
    let mut agent = Agent(Journal::default());
    assert!(matches!(agent.follow(&with_a_reboot, &facts), Action::Stage { .. }));
    agent.0.attempt.as_mut().unwrap().step = Step::Staged;
    let mut staged = facts.clone();
    let content =
        staged.slots[0].content.clone().map(|content| SlotContent { digest: WANTED.into(), ..content });
    staged.slots[1].content = content;
    let for_none = Orders { live: false, ..orders(Target::Booted) };
    assert_eq!(agent.follow(&for_none, &staged), Action::Wait, "its approval is for no reboot");
}

#[test]
fn a_system_that_cannot_do_it_is_named_before_anything_happens() {
    let mut facts = facts();
    facts.live.supported = false;
    let mut agent = Agent(Journal::default());
    assert_eq!(agent.turn(Target::Staged, &facts), Action::Wait);
    assert_eq!(agent.0.attempt.as_ref().unwrap().error.as_ref().unwrap().reason, "CannotApplyLive");
    assert_eq!(agent.turn(Target::Staged, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Failed);
    // The same order, for which it may reboot by now.
    let with_a_reboot = Orders { live: false, ..orders(Target::Staged) };
    let image = with_a_reboot.order.image.clone();
    assert_eq!(agent.follow(&with_a_reboot, &facts), Action::Stage { slot: "b".into(), image });
    assert_eq!(agent.0.attempt.as_ref().unwrap().live, None);
}

/// What failed here stays refused, whichever way it is to come.
#[test]
fn what_failed_before_is_refused_with_a_reboot_too() {
    let mut agent = Agent(Journal::default());
    agent.0.remember_bad(WANTED, RollbackCause::HostCheck);
    for live in [true, false] {
        let orders = Orders { live, ..orders(Target::Staged) };
        assert_eq!(agent.follow(&orders, &facts()), Action::Wait);
        assert_eq!(agent.0.attempt.as_ref().unwrap().error.as_ref().unwrap().reason, "DigestFailedBefore");
    }
}

#[test]
fn another_image_and_a_system_on_trial_take_the_usual_way() {
    let mut other = orders(Target::Staged);
    other.order.image = "os@sha256:0ther".into();
    let mut agent = Agent(Journal::default());
    assert!(matches!(agent.follow(&other, &facts()), Action::Stage { .. }));

    let mut facts = facts();
    facts.slots[0].entry = EntryFact::Trial { left: 2 };
    facts.slots[1] = SlotFact { entry: EntryFact::Permanent, ..facts.slots[1].clone() };
    let mut agent = Agent(Journal::default());
    assert_eq!(agent.turn(Target::Staged, &facts), Action::Wait);
    assert_eq!(agent.0.attempt, None, "it waits for the trial's end");
}

/// What was kept does not come up any more: the machine gave it up, and says so.
#[test]
fn boots_that_come_to_nothing_end_what_was_kept() {
    let (mut agent, mut facts) = on_trial();
    keep(&mut facts);
    agent.turn(Target::Committed, &facts);
    facts.running.as_mut().unwrap().boot_id = "five".into();
    facts.live.boots = Some(crate::live_config::Boots { release: WANTED.into(), count: 4, proven: false });
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
    assert_eq!(agent.back().cause, RollbackCause::Bootloader);
}

/// While the host gives it up nothing is kept, and its word holds after a reboot too.
#[test]
fn what_the_host_gives_up_is_not_kept_and_not_tried_again() {
    let (mut agent, mut facts) = on_trial();
    let (cause, message) = (RollbackCause::HostCheck, "a check failed".to_owned());
    said(&mut facts, Some(Stand::Leaving { cause, message }));
    assert!(!facts.live.may_be_kept("p.1000000", "one"));
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
    assert_eq!(agent.step(), &Step::Trial, "it waits for the end of that");
    facts.running.as_mut().unwrap().boot_id = "two".into();
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
    assert_eq!((agent.back().cause, agent.0.is_bad(WANTED)), (cause, true));
}

/// A boot took it away after the cluster's word, and the time to try it again is over.
#[test]
fn what_was_to_be_kept_and_is_gone_ends_the_attempt() {
    let (mut agent, mut facts) = on_trial();
    facts.running.as_mut().unwrap().boot_id = "two".into();
    (facts.host_checks_passed, facts.now) = (false, now() + SignedDuration::from_hours(1));
    assert_eq!(agent.turn(Target::Committed, &facts), Action::Wait);
    assert_eq!((agent.back().cause, agent.0.is_bad(WANTED)), (RollbackCause::Deadline, false));
}

/// The same plan's identity comes again after another order: what was said before is not said of this attempt.
#[test]
fn an_earlier_attempt_of_the_same_plan_is_another_one() {
    let (mut agent, mut facts) = on_trial();
    agent.turn(Target::Reverted, &facts);
    facts.live.order.as_mut().unwrap().withdrawn = true;
    said(&mut facts, Some(Stand::Withdrawn));
    agent.turn(Target::Reverted, &facts);
    agent.0 = Journal::default();
    facts.now += SignedDuration::from_mins(1);
    agent.turn(Target::Staged, &facts);
    assert_eq!(agent.turn(Target::Booted, &facts), Action::Live(LiveAction::Apply));
    agent.turn(Target::Booted, &facts);
    assert!(matches!(agent.step(), Step::Activating { .. }), "{:?}", agent.step());
}

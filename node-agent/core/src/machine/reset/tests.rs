use evenkeel_crds::{condition::Time, node_plan::Wipe};

use super::*;
use crate::machine::{RunningSlot, SlotContent, SlotFact};

const DIGEST: &str = "sha256:01";

fn order(id: &str) -> ResetOrder {
    let wipe = Wipe { state: true, oem: false };
    ResetOrder {
        id: id.into(),
        wipe,
        boot_id: "boot-1".into(),
        not_after: Time(now() + jiff::SignedDuration::from_mins(15)),
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn slot(name: &str, entry: EntryFact, generation: u64) -> SlotFact {
    let content = SlotContent {
        image: format!("os@{DIGEST}"),
        digest: DIGEST.into(),
        version: "1".into(),
        written_at: Timestamp::UNIX_EPOCH,
    };
    SlotFact { content: Some(content), entry, generation, ..SlotFact::empty(name) }
}

fn facts() -> Facts {
    Facts {
        running: Some(RunningSlot { name: "a".into(), digest: DIGEST.into(), boot_id: "boot-1".into() }),
        slots: vec![slot("a", EntryFact::Permanent, 2), slot("b", EntryFact::Permanent, 1)],
        recovery: None,
        reset_requested: None,
        reset_done: None,
        live: crate::live_config::LiveConfig::default(),
        verdict: None,
        host_checks_passed: true,
        now: now(),
    }
}

fn request(id: &str, boot_id: &str) -> Reset {
    let asked = Some(Asked { id: id.into(), boot_id: boot_id.into() });
    Reset { slot: "a".into(), digest: DIGEST.into(), wipe_state: true, wipe_oem: false, asked }
}

fn decide(journal: &Journal, order: Option<&ResetOrder>, facts: &Facts) -> (Journal, Option<Action>) {
    let journal = notice(journal, order, facts);
    let action = begin_anew(&journal, order, facts);
    (journal, action)
}

#[test]
fn it_is_asked_once_and_not_again_when_it_was_done() {
    let (journal, action) = decide(&Journal::default(), Some(&order("1")), &facts());
    assert_eq!(action, Some(Action::BeginAnew(request("1", "boot-1"))));
    let journal = record(&journal, &request("1", "boot-1"), Outcome::Done, now());
    let asked = Facts { reset_requested: Some(request("1", "boot-1")), ..facts() };
    let (journal, action) = decide(&journal, Some(&order("1")), &asked);
    assert_eq!(action, Some(Action::WaitUntil(1_000_180)), "init takes its time");
    let late = Facts { now: now() + jiff::SignedDuration::from_secs(200), ..asked };
    assert_eq!(decide(&journal, Some(&order("1")), &late).1, Some(Action::BeginAnew(request("1", "boot-1"))));
    // The state partition is new, and nothing is remembered but what the initrd left.
    let booted = RunningSlot { boot_id: "boot-2".into(), ..facts().running.unwrap() };
    let anew = Facts { running: Some(booted), reset_done: Some("1".into()), ..facts() };
    let (journal, action) = decide(&Journal::default(), Some(&order("1")), &anew);
    assert_eq!(action, None);
    assert_eq!(status(&journal, &anew), Some(ResetStatus { id: "1".into(), failed: None }));
    let another = ResetOrder { boot_id: "boot-2".into(), ..order("2") };
    assert!(decide(&journal, Some(&another), &anew).1.is_some(), "another order is another one");
    // Whoever removed what the initrd left did not write it down, as guards of before did not.
    let forgotten = Facts { reset_done: None, ..anew };
    let (journal, action) = decide(&Journal::default(), Some(&order("1")), &forgotten);
    assert_eq!((action, status(&journal, &forgotten).unwrap().failed.is_some()), (None, true));
}

#[test]
fn a_boot_that_did_not_begin_anew_is_told_and_not_repeated() {
    let booted = RunningSlot { boot_id: "boot-2".into(), ..facts().running.unwrap() };
    let left = Facts { running: Some(booted), reset_requested: Some(request("1", "boot-1")), ..facts() };
    let (journal, action) = decide(&Journal::default(), Some(&order("1")), &left);
    assert_eq!(action, Some(Action::WithdrawReset));
    let told = status(&journal, &left).unwrap();
    assert_eq!((told.id.as_str(), told.failed.unwrap().reason.as_str()), ("1", "NotReset"));
    let withdrawn = Facts { reset_requested: None, ..left };
    assert_eq!(decide(&journal, Some(&order("1")), &withdrawn).1, None);
    assert_eq!(notice(&journal, None, &withdrawn).reset, None);
}

#[test]
fn what_is_not_wanted_any_more_is_taken_back_and_a_persons_own_request_is_not() {
    let asked = Facts { reset_requested: Some(request("1", "boot-1")), ..facts() };
    assert_eq!(decide(&Journal::default(), None, &asked).1, Some(Action::WithdrawReset));
    let late = Facts { now: order("1").not_after.0, ..asked.clone() };
    assert_eq!(decide(&Journal::default(), Some(&order("1")), &late).1, Some(Action::WithdrawReset));
    let by_hand = Reset { asked: None, ..request("1", "boot-1") };
    let by_hand = Facts { reset_requested: Some(by_hand), ..facts() };
    assert_eq!(decide(&Journal::default(), None, &by_hand).1, None);
    assert_eq!((left_over(&asked), left_over(&by_hand)), (None, None));
    let booted = RunningSlot { boot_id: "boot-2".into(), ..facts().running.unwrap() };
    let over = Facts { running: Some(booted), ..asked };
    assert_eq!(left_over(&over), Some(Action::WithdrawReset), "nobody may want it any more");
}

#[test]
fn nothing_is_lost_while_something_is_in_doubt() {
    let mut trial = facts();
    trial.slots[1].entry = EntryFact::Trial { left: 3 };
    assert_eq!(decide(&Journal::default(), Some(&order("1")), &trial).1, None);
    let mut other = facts();
    other.slots[1].generation = 9;
    assert_eq!(decide(&Journal::default(), Some(&order("1")), &other).1, None, "another slot boots next");
    let away = Facts { running: None, ..facts() };
    assert_eq!(decide(&Journal::default(), Some(&order("1")), &away).1, None, "not our layout");
    let failed = Outcome::Failed(PlanError { reason: "EspFull".into(), ..PlanError::default() });
    let journal = record(&Journal::default(), &request("1", "boot-1"), failed, now());
    assert_eq!(decide(&journal, Some(&order("1")), &facts()).1, None);
    assert_eq!(status(&journal, &facts()).unwrap().failed.unwrap().reason, "EspFull");
}

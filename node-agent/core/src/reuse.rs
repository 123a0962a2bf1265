//! Which slot an image is written into.
//!
//! Never the one that runs, never one that is pinned, never what a trial falls back to, never the only good one behind a
//! damaged one. Of the others one that holds the wanted image already, else one that holds nothing, else the oldest.

use jiff::Timestamp;

use crate::machine::{EntryFact, SlotFact};

/// Why no slot can be written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSlot {
    /// There is nothing but the slot in use.
    #[error("the disk has no slot besides the one in use: install the machine again with two slots or more")]
    OnlyOne,
    /// What runs is on trial, or was given up and runs until the next boot.
    #[error(
        "slot {running} runs and is not kept, and the next boot falls back to the slot that could be written: keep it \
         with `evenkeel-agent commit`, or give it up with `evenkeel-agent rollback` and reboot; then stage again"
    )]
    OnTrial {
        /// The slot that runs.
        running: String,
    },
    /// The rest is pinned.
    #[error(
        "every slot besides the one in use is pinned ({}): free one with `evenkeel-agent unpin NAME`, then do this again",
        .0.join(", ")
    )]
    Pinned(Vec<String>),
    /// While it is written, nothing good would be left.
    #[error(
        "slot {damaged} does not hold what was written into it, and slot {good} is all that is left to go \
         back to: boot that one (`evenkeel-agent rollback --to {good}`, then a reboot), and stage again, which writes slot \
         {damaged} anew"
    )]
    LastGood {
        /// The kept slot.
        damaged: String,
        /// The one that stays.
        good: String,
    },
}

impl NoSlot {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OnlyOne => "NoPassiveSlot",
            Self::OnTrial { .. } => "TrialUnderWay",
            Self::Pinned(_) => "SlotsPinned",
            Self::LastGood { .. } => "KeptSlotDamaged",
        }
    }
}

/// Chooses the slot for the image `digest`, with `running` the slot that runs; absent on a disk that no machine runs
/// from, where what it boots without a count is in use.
pub fn choose<'a>(
    slots: &'a [SlotFact],
    running: Option<&str>,
    digest: Option<&str>,
) -> Result<&'a SlotFact, NoSlot> {
    let in_use = in_use(slots, running);
    let others: Vec<&SlotFact> = slots.iter().filter(|slot| !in_use.contains(&slot.name.as_str())).collect();
    let holds = |slot: &&&SlotFact| digest.is_some() && slot.digest() == digest;
    if let Some(slot) = others.iter().find(holds) {
        return Ok(slot);
    }
    let last_good = last_good(slots);
    let is_last_good = |slot: &SlotFact| last_good.is_some_and(|good| good.name == slot.name);
    let written: fn(&&&SlotFact) -> Option<Timestamp> =
        |slot| slot.content.as_ref().map(|content| content.written_at);
    let free = others.iter().filter(|slot| !slot.pinned && !is_last_good(slot));
    if let Some(slot) = free.min_by_key(written) {
        return Ok(slot);
    }
    if others.is_empty() {
        let not_kept = running.filter(|running| falls_back(slots, running));
        return Err(
            not_kept.map_or(NoSlot::OnlyOne, |running| NoSlot::OnTrial { running: running.to_owned() })
        );
    }
    let damaged = running.or(kept(slots).map(|slot| slot.name.as_str()));
    match last_good.filter(|good| others.contains(good) && !good.pinned).zip(damaged) {
        Some((good, damaged)) => {
            Err(NoSlot::LastGood { damaged: damaged.to_owned(), good: good.name.clone() })
        }
        None => Err(NoSlot::Pinned(others.iter().map(|slot| slot.name.clone()).collect())),
    }
}

/// The slots that no update may write: the one that runs, and what a trial or a machine without power comes back to.
pub fn in_use<'a>(slots: &'a [SlotFact], running: Option<&'a str>) -> Vec<&'a str> {
    let next = match running {
        // A damaged one gives way to it.
        None => good(slots).max_by_key(|slot| slot.generation).or(kept(slots)),
        Some(running) => kept(slots).filter(|_| falls_back(slots, running)),
    };
    running.into_iter().chain(next.map(|slot| slot.name.as_str())).collect()
}

/// Whether the next boots may lead away from `running`: a trial, or one whose entry was taken away while it ran.
fn falls_back(slots: &[SlotFact], running: &str) -> bool {
    slots.iter().any(|slot| slot.name == running && slot.entry != EntryFact::Permanent)
}

/// The slot that the boot loader takes when no trial is under way.
pub fn kept(slots: &[SlotFact]) -> Option<&SlotFact> {
    slots.iter().filter(|slot| slot.entry == EntryFact::Permanent).max_by_key(|slot| slot.generation)
}

/// The slots that a machine may be sent to.
fn good(slots: &[SlotFact]) -> impl Iterator<Item = &SlotFact> {
    slots.iter().filter(|slot| slot.entry == EntryFact::Permanent && slot.is_good())
}

/// The only one of those. Behind a slot that runs and is not what was written, nothing else is left.
fn last_good(slots: &[SlotFact]) -> Option<&SlotFact> {
    let mut good = good(slots);
    good.next().filter(|_| good.next().is_none())
}

/// The slot to go back to from `slot`: the one that was kept last before it. None that nobody ever kept, as it would boot
/// for ever and without a way back; and none that is known to be damaged, as a machine that runs is not sent where it may
/// not come up.
pub fn fallback<'a>(slots: &'a [SlotFact], slot: &str) -> Option<&'a SlotFact> {
    good(slots).filter(|other| other.name != slot).max_by_key(|other| {
        let written = other.content.as_ref().map(|content| content.written_at);
        (other.generation, written)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{machine::SlotContent, slot_check::SlotCheck};

    fn slot(name: &str, written: Option<i64>, entry: EntryFact) -> SlotFact {
        let content = written.map(|second| SlotContent {
            image: "os:1".into(),
            digest: format!("sha256:{second}"),
            version: "1".into(),
            written_at: Timestamp::from_second(second).unwrap(),
        });
        SlotFact { content, entry, ..SlotFact::empty(name) }
    }

    fn name(chosen: Result<&SlotFact, NoSlot>) -> Result<String, NoSlot> {
        chosen.map(|slot| slot.name.clone())
    }

    #[test]
    fn empty_ones_first_then_the_oldest() {
        let mut slots = [
            slot("a", Some(10), EntryFact::Permanent),
            slot("b", Some(30), EntryFact::Permanent),
            slot("c", Some(20), EntryFact::Permanent),
            slot("d", None, EntryFact::Absent),
        ];
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("d".into()));
        slots[3] = slot("d", Some(40), EntryFact::Absent);
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("a".into()));
        assert_eq!(name(choose(&slots, Some("b"), Some("sha256:40"))), Ok("d".into()));
        slots[0].pinned = true;
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("c".into()));
        for slot in &mut slots {
            slot.pinned = true;
        }
        let error = choose(&slots, Some("b"), None).unwrap_err();
        assert_eq!(error, NoSlot::Pinned(["a", "c", "d"].map(String::from).to_vec()));
        // What is there already needs no writing.
        assert_eq!(name(choose(&slots, Some("b"), Some("sha256:20"))), Ok("c".into()));
    }

    #[test]
    fn a_trial_keeps_what_it_falls_back_to() {
        let trial = EntryFact::Trial { left: 2 };
        let mut slots = vec![slot("a", Some(10), EntryFact::Permanent), slot("b", Some(30), trial)];
        assert_eq!(name(choose(&slots, Some("b"), None)), Err(NoSlot::OnTrial { running: "b".into() }));
        // A trial that does not run is no reason to wait.
        assert_eq!(name(choose(&slots, Some("a"), None)), Ok("b".into()));
        assert_eq!(name(choose(&slots, None, None)), Ok("b".into()));
        slots.push(slot("c", Some(20), EntryFact::Permanent));
        slots[0].generation = 4;
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("c".into()));
        assert_eq!(name(choose(&slots[..1], Some("a"), None)), Err(NoSlot::OnlyOne));
    }

    /// Its entry is gone, so the kept slot is the only one that boots.
    #[test]
    fn a_trial_that_was_given_up_and_still_runs_keeps_what_it_falls_back_to() {
        let slots = [slot("a", Some(10), EntryFact::Permanent), slot("b", Some(30), EntryFact::Absent)];
        let not_kept = Err(NoSlot::OnTrial { running: "b".into() });
        assert_eq!(name(choose(&slots, Some("b"), None)), not_kept);
        assert_eq!(name(choose(&slots, Some("b"), Some("sha256:10"))), not_kept);
        assert_eq!(in_use(&slots, Some("b")), ["b", "a"]);
    }

    fn damage(slot: &mut SlotFact) {
        let content = slot.content.as_ref().unwrap();
        let (digest, at) = (content.digest.clone(), content.written_at);
        slot.check = Some(SlotCheck { digest, at, damaged_at: Some(4096) });
    }

    #[test]
    fn the_way_back_leads_to_what_was_kept_last_and_never_to_what_nobody_kept() {
        let mut slots = [
            slot("a", Some(10), EntryFact::Permanent),
            slot("b", Some(30), EntryFact::Permanent),
            slot("c", Some(40), EntryFact::Absent),
            slot("d", Some(50), EntryFact::Trial { left: 3 }),
        ];
        slots[0].generation = 1;
        slots[1].generation = 2;
        assert_eq!(fallback(&slots, "b").unwrap().name, "a");
        assert_eq!(fallback(&slots[1..], "b"), None);
        assert_eq!(fallback(&slots[..1], "a"), None);
        damage(&mut slots[0]);
        assert_eq!(fallback(&slots, "b"), None);
        assert_eq!(fallback(&slots, "d").unwrap().name, "b");
    }

    #[test]
    fn the_only_good_slot_behind_a_damaged_one_is_not_written() {
        let mut slots =
            vec![slot("a", Some(10), EntryFact::Permanent), slot("b", Some(30), EntryFact::Permanent)];
        slots[1].generation = 1;
        damage(&mut slots[1]);
        let refused = choose(&slots, Some("b"), Some("sha256:99")).unwrap_err();
        assert_eq!(refused, NoSlot::LastGood { damaged: "b".into(), good: "a".into() });
        assert_eq!(refused.reason(), "KeptSlotDamaged");
        // What it holds already is read again, and not written.
        assert_eq!(name(choose(&slots, Some("b"), Some("sha256:10"))), Ok("a".into()));
        // Once it runs, or where no machine does, the damaged one is what there is to write.
        for running in [Some("a"), Some("recovery"), None] {
            assert_eq!(name(choose(&slots, running, None)), Ok("b".into()), "{running:?}");
        }
        slots.push(slot("c", Some(5), EntryFact::Permanent));
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("c".into()));
        slots[2].pinned = true;
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("a".into()), "what is pinned is left");
        slots[0].pinned = true;
        assert_eq!(
            choose(&slots, Some("b"), None).unwrap_err(),
            NoSlot::Pinned(["a", "c"].map(String::from).to_vec())
        );
        // What nobody kept is nothing to go back to.
        let mut slots = [slot("a", Some(10), EntryFact::Absent), slot("b", Some(30), EntryFact::Permanent)];
        damage(&mut slots[1]);
        assert_eq!(name(choose(&slots, Some("b"), None)), Ok("a".into()));
    }

    fn entry() -> impl Strategy<Value = EntryFact> {
        prop_oneof![
            Just(EntryFact::Absent),
            Just(EntryFact::Permanent),
            (0u32..3).prop_map(|left| EntryFact::Trial { left })
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_needed_is_written(
            parts in proptest::collection::vec((proptest::option::of(0i64..50), entry(), any::<bool>(), 0u64..9), 1..6),
            runs in 0usize..6,
            wanted in 0i64..50,
        ) {
            let slots: Vec<SlotFact> = ('a'..)
                .zip(parts)
                .map(|(letter, (written, entry, pinned, generation))| SlotFact {
                    generation,
                    pinned,
                    ..slot(&letter.to_string(), written, entry)
                })
                .collect();
            let running = slots.get(runs).map(|slot| slot.name.as_str());
            let digest = format!("sha256:{wanted}");
            if let Ok(chosen) = choose(&slots, running, Some(&digest)) {
                prop_assert_ne!(Some(chosen.name.as_str()), running);
                prop_assert!(!chosen.pinned || chosen.digest() == Some(&digest));
                if slots.get(runs).is_none_or(|slot| slot.entry != EntryFact::Permanent) {
                    let needed = kept(&slots).filter(|slot| running.is_some() || slot.is_good());
                    prop_assert_ne!(needed.map(|slot| &slot.name), Some(&chosen.name));
                }
                let left = |slot: &&SlotFact| slot.is_good() && slot.entry == EntryFact::Permanent;
                if slots.iter().any(|slot| left(&slot)) && chosen.digest() != Some(&digest) {
                    let mut left = slots.iter().filter(left);
                    prop_assert!(left.any(|slot| slot.name != chosen.name), "nothing good is left");
                }
            }
        }
    }
}

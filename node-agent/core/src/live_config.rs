//! A cloud-config of the cluster's that is applied to the system while it runs: on trial until it is kept, and with a way
//! back to the one before, without a reboot.
//!
//! Small documents on the state partition, each with one writer. The agent writes what is asked ([`Order`]) and what is
//! kept ([`Kept`]); a unit of the host applies, checks, waits for the agent's word and says what came of it ([`Said`]). A
//! boot applies what is kept, counts itself before ([`Boots`]), and gives it up when no agent came up with it.

use evenkeel_crds::node_plan::RollbackCause;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    digest::hex,
    machine::{RunningSlot, TRIAL_TRIES},
};

/// What a slot's system is configured by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The image's digest, and with a document a part of that one's.
    pub release: String,
    /// The document; absent where the cluster has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

impl Setting {
    /// SHA-256 of the document, lower-case hex.
    pub fn document_sha256(&self) -> Option<String> {
        self.document.as_ref().map(|document| hex(&Sha256::digest(document)))
    }
}

/// A setting that is kept in place of the one that came with a slot: one document for each slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The slot.
    pub slot: String,
    /// The release that the slot itself holds: for another one this is not meant.
    pub under: String,
    /// What counts.
    pub setting: Setting,
    /// What counted before.
    pub before: Setting,
}

/// What the host's unit is asked for. It says so again after each change, and until it has an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Identity of the attempt.
    pub id: String,
    /// The boot that it is for: in another one what is kept was applied.
    pub boot_id: String,
    /// What is to be tried.
    pub wanted: Setting,
    /// What is gone back to.
    pub before: Setting,
    /// Seconds from its application until it must be kept.
    pub deadline_seconds: u64,
    /// `host:port` of the API server: where the unit knocks before it blames the document for a word that did not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<String>,
    /// Whether it is to be gone back.
    #[serde(default)]
    pub withdrawn: bool,
}

/// What the host's unit says of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// The order's.
    pub id: String,
    /// The boot in which it is so.
    pub boot_id: String,
    /// Where it stands.
    pub stand: Stand,
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Stand {
    /// It is being applied. A unit that finds this when it starts was cut off in it.
    Applying,
    /// Applied, and the image's health checks passed.
    Applied {
        /// Seconds from the boot to that.
        at: u64,
    },
    /// It is given up, and the one before is being applied again: nobody keeps it any more.
    Leaving {
        /// Why.
        cause: RollbackCause,
        /// Why, for people.
        message: String,
    },
    /// The one before was applied again, as the agent wanted it.
    Withdrawn,
    /// The one before was applied again, because of this.
    GivenUp {
        /// Why.
        cause: RollbackCause,
        /// Why, for people.
        message: String,
    },
}

/// What the host's unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitStep {
    /// It is done.
    End,
    /// It was cut off while it applied what is wanted: that is given up.
    CutOff,
    /// It applies what is wanted, and asks the image's health checks.
    Apply,
    /// It waits for the agent's word.
    Wait,
    /// That word did not come in time: it applies what was before, and says why.
    TooLate,
    /// It applies what was before.
    GoBack,
}

/// Whether boots with what is kept came far enough for an agent to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boots {
    /// What was kept.
    pub release: String,
    /// How many in a row did not.
    pub count: u32,
    /// Whether one did: from then on none is counted.
    #[serde(default)]
    pub proven: bool,
}

/// All that is known of such settings on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveConfig {
    /// Whether the system that runs has the unit for it.
    pub supported: bool,
    /// What is kept.
    pub kept: Option<Kept>,
    /// What was asked for last.
    pub order: Option<Order>,
    /// What was said of that.
    pub said: Option<Said>,
    /// Boots with what is kept.
    pub boots: Option<Boots>,
}

impl LiveConfig {
    /// What is kept for the slot that runs, and was not given up.
    pub fn kept(&self, running: &RunningSlot) -> Option<&Kept> {
        self.kept_for(&running.name, &running.digest)
    }

    /// What is kept for a slot that itself holds this release, and was not given up.
    pub fn kept_for(&self, slot: &str, release: &str) -> Option<&Kept> {
        let kept = self.kept.as_ref()?;
        let meant = kept.slot == slot && kept.under == release;
        let given_up = self.boots.as_ref().is_some_and(|boots| {
            boots.release == kept.setting.release && boots.count > TRIAL_TRIES && !boots.proven
        });
        (meant && !given_up).then_some(kept)
    }

    /// Whether this release is what is kept for the slot that runs.
    pub fn keeps(&self, running: &RunningSlot, release: &str) -> bool {
        self.kept(running).is_some_and(|kept| kept.setting.release == release)
    }

    /// The count of a boot that begins to apply what is kept; absent where nothing is, and where a boot with it came up.
    pub fn count_boot(&self, running: &RunningSlot) -> Option<Boots> {
        let release = &self.kept(running)?.setting.release;
        let before = self.boots.as_ref().filter(|boots| boots.release == *release);
        if before.is_some_and(|boots| boots.proven) {
            return None;
        }
        let count = before.map_or(0, |boots| boots.count) + 1;
        Some(Boots { release: release.clone(), count, proven: false })
    }

    /// What an agent notes that runs in a boot with what is kept; absent where there is nothing to note.
    pub fn prove(&self) -> Option<Boots> {
        let boots = self.boots.as_ref().filter(|boots| !boots.proven && boots.count <= TRIAL_TRIES)?;
        Some(Boots { count: 0, proven: true, ..boots.clone() })
    }

    /// The order, if it is that of an attempt and of this boot.
    pub fn order(&self, id: &str, boot_id: &str) -> Option<&Order> {
        self.order.as_ref().filter(|order| order.id == id && order.boot_id == boot_id)
    }

    /// What was said in this boot of an attempt's order.
    pub fn stand(&self, id: &str, boot_id: &str) -> Option<&Stand> {
        let said = self.said.as_ref()?;
        (said.id == id && said.boot_id == boot_id).then_some(&said.stand)
    }

    /// What the host's unit does next, `up` seconds after the boot.
    pub fn unit_step(&self, running: &RunningSlot, up: u64) -> UnitStep {
        let Some(order) = self.order.as_ref().filter(|order| order.boot_id == running.boot_id) else {
            return UnitStep::End;
        };
        match self.stand(&order.id, &order.boot_id) {
            Some(Stand::Withdrawn | Stand::GivenUp { .. }) => UnitStep::End,
            Some(Stand::Leaving { .. }) => UnitStep::GoBack,
            _ if order.withdrawn => UnitStep::GoBack,
            _ if self.keeps(running, &order.wanted.release) => UnitStep::End,
            None => UnitStep::Apply,
            Some(Stand::Applying) => UnitStep::CutOff,
            Some(Stand::Applied { at }) if up >= at.saturating_add(order.deadline_seconds) => {
                UnitStep::TooLate
            }
            Some(Stand::Applied { .. }) => UnitStep::Wait,
        }
    }

    /// Whether something is on trial in the boot that runs.
    pub fn is_on_trial(&self, running: &RunningSlot) -> bool {
        self.tried(&running.boot_id).is_some_and(|tried| !self.keeps(running, &tried.release))
    }

    /// What was said last of an attempt's order, in whatever boot.
    pub fn last_stand(&self, id: &str) -> Option<&Stand> {
        self.said.as_ref().filter(|said| said.id == id).map(|said| &said.stand)
    }

    /// Whether an attempt's order may be kept: it is applied, and nobody is about to give it up.
    pub fn may_be_kept(&self, id: &str, boot_id: &str) -> bool {
        let withdrawn = self.order(id, boot_id).is_none_or(|order| order.withdrawn);
        !withdrawn && matches!(self.stand(id, boot_id), Some(Stand::Applied { .. }))
    }

    /// What is tried in this boot: applied, not kept, not withdrawn.
    fn tried(&self, boot_id: &str) -> Option<&Setting> {
        let order = self.order.as_ref().filter(|order| order.boot_id == boot_id && !order.withdrawn)?;
        let applied = matches!(self.stand(&order.id, boot_id), Some(Stand::Applied { .. }));
        applied.then_some(&order.wanted)
    }

    /// The release that the slot that runs is configured for.
    pub fn release<'a>(&'a self, running: &'a RunningSlot) -> &'a str {
        let kept = || self.kept(running).map(|kept| &kept.setting);
        self.tried(&running.boot_id).or_else(kept).map_or(&running.digest, |setting| &setting.release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(release: &str) -> Setting {
        Setting { release: release.into(), document: Some("#cloud-config\n{}\n".into()) }
    }

    fn running() -> RunningSlot {
        RunningSlot { name: "a".into(), digest: "sha256:1".into(), boot_id: "one".into() }
    }

    fn kept() -> LiveConfig {
        let kept = Kept {
            slot: "a".into(),
            under: "sha256:1".into(),
            setting: setting("sha256:1+b"),
            before: Setting { release: "sha256:1".into(), document: None },
        };
        LiveConfig { kept: Some(kept), ..LiveConfig::default() }
    }

    #[test]
    fn what_is_kept_counts_for_its_slot_and_release_alone() {
        assert_eq!(kept().release(&running()), "sha256:1+b");
        let other = RunningSlot { name: "b".into(), ..running() };
        assert_eq!(kept().release(&other), "sha256:1");
        let written_anew = RunningSlot { digest: "sha256:2".into(), ..running() };
        assert_eq!(kept().release(&written_anew), "sha256:2");
    }

    #[test]
    fn boots_without_an_agent_give_it_up() {
        let mut live = kept();
        for count in 1..=TRIAL_TRIES {
            let boots = live.count_boot(&running());
            assert_eq!(boots.as_ref().map(|boots| boots.count), Some(count));
            live.boots = boots;
            assert_eq!(live.release(&running()), "sha256:1+b");
        }
        assert_eq!(live.prove().map(|boots| boots.proven), Some(true));
        let proven = LiveConfig { boots: live.prove(), ..live.clone() };
        assert_eq!((proven.release(&running()), proven.count_boot(&running())), ("sha256:1+b", None));
        live.boots = live.count_boot(&running());
        assert_eq!((live.release(&running()), live.count_boot(&running())), ("sha256:1", None));
        assert_eq!(live.prove(), None, "it was given up");
        // Another one that is kept later has all of its tries.
        live.kept.as_mut().unwrap().setting = setting("sha256:1+c");
        assert_eq!(live.count_boot(&running()).map(|boots| boots.count), Some(1));
    }

    #[test]
    fn what_is_tried_counts_in_its_boot_until_it_is_withdrawn() {
        let mut live = kept();
        let order = Order {
            id: "p".into(),
            boot_id: "one".into(),
            wanted: setting("sha256:1+c"),
            before: setting("sha256:1+b"),
            deadline_seconds: 60,
            api_server: None,
            withdrawn: false,
        };
        live.order = Some(order);
        assert_eq!(live.release(&running()), "sha256:1+b");
        let stand = Stand::Applied { at: 9 };
        live.said = Some(Said { id: "p".into(), boot_id: "one".into(), stand });
        assert_eq!(live.release(&running()), "sha256:1+c");
        assert_eq!(live.release(&RunningSlot { boot_id: "two".into(), ..running() }), "sha256:1+b");
        live.order.as_mut().unwrap().withdrawn = true;
        assert_eq!(live.release(&running()), "sha256:1+b");
    }
}

//! Cloud-configs without a reboot on a modelled machine: what its agent writes, and what its host's unit does with it.

use evenkeel_crds::node_plan::{PlanError, RollbackCause};
use evenkeel_node_agent_core::{
    live_config::{Kept, LiveConfig, Order, Said, Setting, Stand, UnitStep},
    machine::{LiveAction, Outcome, order_id},
};
use jiff::Timestamp;

use super::{Agent, Fate, TRIAL};

impl Agent {
    /// Whether a cloud-config is on trial, without a reboot.
    pub(super) fn tries_live(&self) -> bool {
        self.live().is_on_trial(&self.running())
    }

    /// What is known of cloud-configs without a reboot where its slot runs.
    pub(super) fn live(&self) -> LiveConfig {
        LiveConfig { kept: self.kept.get(self.running).cloned(), ..self.live.clone() }
    }

    /// What the host's unit does about an order.
    pub(super) fn unit(&mut self, now: Timestamp) {
        let Some(order) = self.live.order.clone() else { return };
        let up = u64::try_from(now.duration_since(self.booted_at).as_secs()).unwrap_or(0);
        let leaving = |cause, message: &str| Stand::Leaving { cause, message: message.to_owned() };
        let fails = self.fate == Fate::StagingFails && !self.staging_failed;
        let live = self.live();
        let stand = match live.unit_step(&self.running(), up) {
            UnitStep::End | UnitStep::Wait => return,
            UnitStep::Apply if fails => {
                self.staging_failed = true;
                leaving(RollbackCause::ClusterUnreachable, "the network is away")
            }
            UnitStep::Apply => Stand::Applied { at: up },
            UnitStep::CutOff => unreachable!("it applies at once here"),
            UnitStep::TooLate => leaving(RollbackCause::Deadline, "nobody kept it"),
            UnitStep::GoBack => match live.said.map(|said| said.stand) {
                Some(Stand::Leaving { cause, message }) => Stand::GivenUp { cause, message },
                _ => Stand::Withdrawn,
            },
        };
        self.live.said = Some(Said { id: order.id, boot_id: order.boot_id, stand });
    }

    pub(super) fn act_live(&mut self, action: LiveAction) -> Outcome {
        let (running, attempt) = (self.running(), self.journal.attempt.clone().expect("it acts"));
        let (live, id) = (self.live(), order_id(&attempt));
        let came = Setting { release: running.digest.clone(), document: None };
        let kept = live.kept(&running).cloned();
        let before = kept.as_ref().map_or_else(|| came.clone(), |kept| kept.setting.clone());
        let order = |wanted: Setting, before: Setting, withdrawn| Order {
            id: id.clone(),
            boot_id: running.boot_id.clone(),
            wanted,
            before,
            deadline_seconds: TRIAL.as_secs().unsigned_abs(),
            api_server: None,
            withdrawn,
        };
        match action {
            LiveAction::Apply => {
                assert!(!self.on_trial(), "nothing is applied to a system on trial");
                let wanted = Setting { release: attempt.digest.clone(), document: None };
                if live.order(&id, &running.boot_id).is_none() {
                    self.live.order = Some(order(wanted, before, false));
                }
            }
            LiveAction::Keep if !live.may_be_kept(&id, &running.boot_id) => {
                let message = "the host gives it up".into();
                return Outcome::Failed(PlanError { reason: "GivenUp".into(), message, retryable: true });
            }
            LiveAction::Keep => {
                let Order { wanted: setting, before, .. } = live.order.expect("it was ordered");
                let under = running.digest.clone();
                self.kept.insert(self.running, Kept { slot: running.name, under, setting, before });
                self.live.boots = None;
                self.kept_live.0 += 1;
            }
            LiveAction::Withdraw => {
                if let Some(order) = &mut self.live.order {
                    order.withdrawn = true;
                }
            }
            LiveAction::GoBack => {
                if let Some(kept) = kept {
                    self.kept_live.1 += 1;
                    self.live.order = Some(order(kept.setting.clone(), kept.before.clone(), true));
                    let back = Kept { setting: kept.before, before: came, ..kept };
                    self.kept.insert(self.running, back);
                }
            }
        }
        Outcome::Done
    }
}

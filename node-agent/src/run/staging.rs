//! Staging while the plan is watched: progress goes out, and an order that changed ends it.

use std::{sync::Arc, time::Duration};

use evenkeel_crds::{
    NodePlan, NodePlanSpec,
    cloud_config::OrderedCloudConfig,
    node_plan::{StagingCost, Target},
    verification::Verification,
};
use evenkeel_node_agent_core::{
    digest::hex,
    layout::RECOVERY_SLOT,
    machine::{EntryFact, Facts, Orders, Outcome, status},
    slot_record::SlotRecord,
};
use evenkeel_registry::RegistryOptions;
use evenkeel_trust::Policy;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};

use super::{Agent, act::ActError, host_facts};
use crate::{
    boot,
    causes::with_causes,
    disk, own_changes,
    stage::{self, Meter, StageError, StageRequest, Staged},
};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(1500);

/// What is being staged, as the plan said when that began.
struct Wanted {
    for_recovery: bool,
    image: String,
    plan_id: Option<String>,
    verification: Option<Verification>,
}

impl Agent {
    /// Stages `image`; `None` when the order changed meanwhile, and the next turn has to decide anew.
    pub(super) async fn stage(
        &mut self,
        plan: Option<NodePlan>,
        slot: &str,
        image: &str,
        facts: &Facts,
    ) -> Option<Outcome> {
        // An order is in its plan, and so is who must have signed.
        let NodePlanSpec { pull, verification, plan_id, cloud_config, .. } = plan?.spec;
        let wanted = Wanted {
            for_recovery: slot == RECOVERY_SLOT,
            image: image.to_owned(),
            plan_id: plan_id.clone(),
            verification: verification.clone(),
        };
        // The last resort is the same on every machine.
        let cloud_config = match cloud_config.filter(|_| !wanted.for_recovery).map(intact).transpose() {
            Ok(document) => document,
            Err(error) => return Some(Outcome::Failed(error.plan_error())),
        };
        let registry = RegistryOptions {
            pull,
            docker_config: self.args.docker_config.clone(),
            ca_file: self.args.ca_file.clone(),
            hosts_dir: self.args.hosts_dir.clone(),
            reputation: self.reputation.clone(),
            ..RegistryOptions::default()
        };
        let disk = match disk::open_or_find(self.args.disk.as_deref(), &self.args.proc) {
            Ok(disk) => disk,
            Err(error) => return Some(Outcome::Failed(StageError::from(error).plan_error())),
        };
        let trust = match verification.as_ref().map(Policy::try_from).transpose() {
            Ok(trust) => trust,
            Err(error) => return Some(Outcome::Failed(StageError::from(error).plan_error())),
        };
        let (slot_name, image_name) = (slot.to_owned(), image.to_owned());
        let request =
            StageRequest { disk, slot: slot_name, image: image_name, registry, trust, cloud_config, plan_id };
        let meter = Arc::new(Meter::default());
        let meter_here = meter.clone();
        let mut staging = tokio::spawn(async move { stage::stage(&request, &meter_here).await });
        let mut facts = while_writing(facts, slot);
        let mut report_at = Instant::now() + REPORT;
        let staged = loop {
            tokio::select! {
                staged = &mut staging => break staged,
                () = sleep_until(report_at) => {
                    facts.now = jiff::Timestamp::now();
                    self.report_progress(&facts, &meter).await;
                    report_at = Instant::now() + REPORT;
                }
                () = self.watch.changed(REPORT) => if !self.still_wanted(&wanted) {
                    tracing::info!(image, "the order has changed; staging ends");
                    meter.stop();
                }
            }
        };
        match staged {
            Ok(Ok(Staged { record, .. })) if wanted.for_recovery => Some(self.make_last_resort(&record)),
            Ok(Ok(Staged { cost, .. })) => {
                let running = facts.running.as_ref().map(|running| running.name.as_str());
                Some(Outcome::Staged(self.with_conflicts(cost, running, slot)))
            }
            Ok(Err(StageError::Stopped)) => None,
            Ok(Err(error)) => Some(Outcome::Failed(error.plan_error())),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The account of staging with what of the machine's own is in conflict with the image; nothing depends on it.
    fn with_conflicts(&self, cost: StagingCost, running: Option<&str>, slot: &str) -> StagingCost {
        let Some(running) = running else { return cost };
        let look = || -> anyhow::Result<Vec<String>> {
            let disk = disk::open_or_find(self.args.disk.as_deref(), &self.args.proc)?;
            let overlays = own_changes::of_machine(&self.args.proc);
            let paths = own_changes::conflicts(&overlays, &disk.slot(running)?, &disk.slot(slot)?)?;
            Ok(paths.iter().map(|path| path.display().to_string()).collect())
        };
        match tokio::task::block_in_place(look) {
            Ok(paths) => {
                for path in &paths {
                    tracing::warn!(
                        path,
                        "the image has another version of what this machine changed: the machine's stays"
                    );
                }
                cost.with_conflicts(&paths)
            }
            Err(error) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "conflicts with the machine's own changes are unknown"
                );
                cost
            }
        }
    }

    /// The recovery slot boots when no other one does.
    fn make_last_resort(&self, record: &SlotRecord) -> Outcome {
        let make = || -> Result<(), ActError> {
            let disk = disk::open_or_find(self.args.disk.as_deref(), &self.args.proc)?;
            Ok(boot::open(&disk)?.make_last_resort(&disk.slot(RECOVERY_SLOT)?, record)?)
        };
        match tokio::task::block_in_place(make) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error.plan_error()),
        }
    }

    /// Whether the plan still wants what is being staged, and trusts the same signers. For the recovery slot no order waits.
    fn still_wanted(&self, wanted: &Wanted) -> bool {
        let Some(spec) = self.watch.plan().map(|plan| plan.spec) else { return false };
        if spec.verification != wanted.verification || spec.plan_id != wanted.plan_id {
            return false;
        }
        if wanted.for_recovery {
            return spec.recovery_image() == Some(&wanted.image);
        }
        let orders = Orders::of(&spec).map(|orders| orders.order);
        orders.is_some_and(|order| order.image == wanted.image && order.target != Target::Reverted)
    }

    async fn report_progress(&mut self, facts: &Facts, meter: &Meter) {
        let generation = self.watch.plan().and_then(|plan| plan.metadata.generation);
        let before = self.watch.status_before();
        let progress = Some(meter.progress());
        let status = status(&self.journal, facts, progress, host_facts(facts), generation, before.as_ref());
        self.watch.report(status).await;
    }
}

/// The document of an order, if it is the one that the order is named after.
fn intact(config: OrderedCloudConfig) -> Result<String, StageError> {
    let actual = hex(&Sha256::digest(&config.document));
    if actual != config.sha256 {
        return Err(StageError::CloudConfig { expected: config.sha256, actual });
    }
    Ok(config.document)
}

/// The facts without what is being overwritten.
fn while_writing(facts: &Facts, slot: &str) -> Facts {
    let mut facts = facts.clone();
    for fact in facts.slots.iter_mut().chain(&mut facts.recovery).filter(|fact| fact.name == slot) {
        fact.content = None;
        fact.entry = EntryFact::Absent;
    }
    facts
}

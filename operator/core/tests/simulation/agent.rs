//! A node's agent: what it remembers survives its plan.

use evenkeel_crds::{
    condition::Time,
    node_plan::{
        Booted, HostFacts, NodePlanSpec, NodePlanStatus, Phase, PlanError, RollbackCause, RolledBack, Target,
    },
};
use evenkeel_operator_core::NodeSeen;
use jiff::{SignedDuration, Timestamp};

/// What runs before the first rollout.
pub const OLD: &str = "sha256:1000000000000000000000000000000000000000000000000000000000000000";

/// What is wrong with a node, for good.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fate {
    Fine,
    /// The image that is tried first does not boot here.
    ImageFails,
    /// Staging ends in an error that a person has to look at; the second attempt works.
    StagingFails,
    /// It does not come back from its reboot.
    NeverReturns,
}

pub struct Agent {
    pub fate: Fate,
    pub status: NodePlanStatus,
    /// What runs when it goes back.
    previous: String,
    trial_since: Option<Timestamp>,
    staging_failed: bool,
}

impl Agent {
    pub fn new(fate: Fate, boot_id: &str) -> Self {
        let booted = Booted {
            slot: "a".into(),
            digest: OLD.into(),
            version: None,
            boot_id: boot_id.into(),
            host_checks_passed: false,
        };
        let host = HostFacts { manageable: true, ..HostFacts::default() };
        let status = NodePlanStatus { booted: Some(booted), host: Some(host), ..NodePlanStatus::default() };
        Self { fate, status, previous: OLD.into(), trial_since: None, staging_failed: false }
    }

    /// The state partition is lost. A machine between two slots finds out where it is; that is not modelled here.
    pub fn lose_memory(&mut self) {
        if !matches!(self.status.phase, Phase::Rebooting | Phase::Trial) {
            self.status.plan_id = None;
            self.status.phase = Phase::Idle;
            self.status.bad_digests.clear();
            self.status.error = None;
            self.status.rolled_back = None;
        }
    }

    fn booted(&mut self) -> &mut Booted {
        self.status.booted.as_mut().expect("set when the agent is made")
    }

    fn back(&mut self, cause: RollbackCause, now: Timestamp) {
        self.status.phase = Phase::RolledBack;
        self.status.rolled_back = Some(RolledBack { cause, message: "simulated".into(), at: Time(now) });
    }

    fn boot(&mut self, node: &mut NodeSeen, boot_id: &str, digest: &str) {
        boot_id.clone_into(&mut node.boot_id);
        boot_id.clone_into(&mut self.booted().boot_id);
        digest.clone_into(&mut self.booted().digest);
        self.booted().host_checks_passed = false;
    }

    /// One step. `bad` is the digest that does not boot on nodes of that fate.
    pub fn step(
        &mut self,
        node: &mut NodeSeen,
        spec: Option<&NodePlanSpec>,
        boot: &str,
        bad: &str,
        now: Timestamp,
    ) {
        let order = spec.and_then(NodePlanSpec::order);
        let under_way = matches!(self.status.phase, Phase::Rebooting | Phase::Trial);
        if let Some(order) =
            order.as_ref().filter(|order| self.status.plan_id.as_ref() != Some(&order.plan_id))
        {
            if under_way {
                // The machine is between two slots: first let that end.
                return self.advance(node, None, boot, bad, now);
            }
            self.status.plan_id = Some(order.plan_id.clone());
            self.status.rolled_back = None;
            self.status.error = None;
            self.status.phase = if self.booted().digest == order.digest() {
                Phase::Committed
            } else if self.status.bad_digests.iter().any(|bad| bad == order.digest()) {
                Phase::Failed
            } else {
                Phase::Staging
            };
            return;
        }
        self.advance(node, spec, boot, bad, now);
    }

    fn advance(
        &mut self,
        node: &mut NodeSeen,
        spec: Option<&NodePlanSpec>,
        boot: &str,
        bad: &str,
        now: Timestamp,
    ) {
        let order = spec.and_then(NodePlanSpec::order);
        let target = order.as_ref().map(|order| order.target);
        let approved = spec.and_then(|spec| spec.not_after).is_some_and(|until| now < until.0);
        let wanted = order.as_ref().map(|order| order.digest().to_owned());
        match self.status.phase {
            Phase::Staging if self.fate == Fate::StagingFails && !self.staging_failed => {
                self.staging_failed = true;
                self.status.phase = Phase::Failed;
                let message = "the disk is full".into();
                self.status.error = Some(PlanError { reason: "DiskFull".into(), message, retryable: false });
            }
            Phase::Staging | Phase::Staged | Phase::Failed if target == Some(Target::Reverted) => {
                self.back(RollbackCause::ClusterGate, now);
            }
            Phase::Staging if target.is_some() => self.status.phase = Phase::Staged,
            Phase::Staged if target >= Some(Target::Booted) && approved => {
                self.status.phase = Phase::Rebooting;
                self.previous = self.booted().digest.clone();
                node.ready = false;
            }
            Phase::Rebooting if self.fate == Fate::NeverReturns => {}
            Phase::Rebooting => {
                let wanted = wanted.unwrap_or_else(|| bad.to_owned());
                let previous = self.previous.clone();
                if self.fate == Fate::ImageFails && wanted == bad || target == Some(Target::Reverted) {
                    self.boot(node, boot, &previous);
                    self.status.bad_digests.push(wanted);
                    self.back(RollbackCause::Bootloader, now);
                } else {
                    self.boot(node, boot, &wanted);
                    self.status.phase = Phase::Trial;
                    self.trial_since = Some(now);
                }
            }
            Phase::Trial if target == Some(Target::Committed) => self.status.phase = Phase::Committed,
            Phase::Trial if target == Some(Target::Reverted) || self.trial_is_over(now) => {
                let (previous, tried) = (self.previous.clone(), self.booted().digest.clone());
                self.boot(node, boot, &previous);
                self.status.bad_digests.push(tried);
                self.back(RollbackCause::Deadline, now);
            }
            _ => {
                // Checks take a while after the boot.
                let booted = self.trial_since.is_some_and(|since| now > since);
                self.booted().host_checks_passed = self.status.phase == Phase::Trial && booted;
                node.ready = true;
            }
        }
    }

    /// The guard's deadline, of 30 min.
    fn trial_is_over(&self, now: Timestamp) -> bool {
        self.trial_since.is_some_and(|since| now >= since + SignedDuration::from_mins(30))
    }
}

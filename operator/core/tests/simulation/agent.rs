//! A node's agent: the real update machine, over a model of a disk, a boot loader and a guard.

#[path = "unit.rs"]
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_crds::node_plan::{
    HostFacts, NodePlanSpec, NodePlanStatus, PlanError, RollbackCause, StagingCost,
};
use evenkeel_node_agent_core::{
    journal::{Journal, Verdict},
    live_config::{Kept, LiveConfig},
    machine::{
        Action, EntryFact, Facts, Orders, Outcome, RunningSlot, SlotContent, SlotFact, TRIAL_TRIES, next,
        record,
        recovery::{forget, write_recovery},
        reset, resume, status,
    },
    reset::Reset,
};
use evenkeel_operator_core::NodeSeen;
use jiff::{SignedDuration, Timestamp};

/// What runs before the first rollout.
pub const OLD: &str = "sha256:1000000000000000000000000000000000000000000000000000000000000000";
/// The guard's deadline.
const TRIAL: SignedDuration = SignedDuration::from_mins(30);

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
    /// Its agent is not heard of any more from some moment on.
    GoesSilent,
}

/// What happens to the agent in one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    None,
    /// It is killed after its action, before it wrote down what became of it.
    Killed,
    /// The machine loses power.
    PowerCut,
}

struct Slot {
    digest: Option<String>,
    entry: EntryFact,
    generation: u64,
}

pub struct Agent {
    pub fate: Fate,
    pub status: NodePlanStatus,
    journal: Journal,
    slots: BTreeMap<&'static str, Slot>,
    /// Digest of what its recovery slot holds.
    recovery: Option<String>,
    /// What its initrd is asked to do.
    requested: Option<Reset>,
    /// The order that its initrd carried out last.
    reset_done: Option<String>,
    /// The orders for which it began anew.
    pub resets: BTreeSet<String>,
    running: &'static str,
    boot_id: String,
    booted_at: Timestamp,
    /// Between two boots.
    off: bool,
    verdict: Option<Verdict>,
    /// What its host was asked and said of a cloud-config without a reboot.
    live: LiveConfig,
    /// What was kept of those, by slot.
    kept: BTreeMap<&'static str, Kept>,
    /// How many cloud-configs it kept without a reboot, and how many of those it left again.
    pub kept_live: (u32, u32),
    staging_failed: bool,
    /// How far its machine's clock is off.
    skew: SignedDuration,
    /// From when to when it does not run.
    pub silent: (Timestamp, Timestamp),
    /// Until when its node is Ready now and not then.
    flaps_until: Timestamp,
    /// The version of its plan with which it had nothing to do.
    rested_at: Option<u64>,
    waits: bool,
}

impl Agent {
    pub fn new(fate: Fate, boot_id: &str, now: Timestamp, skew: SignedDuration) -> Self {
        let kept = Slot { digest: Some(OLD.into()), entry: EntryFact::Permanent, generation: 1 };
        let free = Slot { digest: None, entry: EntryFact::Absent, generation: 0 };
        let mut agent = Self {
            fate,
            status: NodePlanStatus::default(),
            journal: Journal::default(),
            slots: BTreeMap::from([("a", kept), ("b", free)]),
            recovery: None,
            requested: None,
            reset_done: None,
            resets: BTreeSet::new(),
            running: "a",
            boot_id: boot_id.to_owned(),
            booted_at: now + skew,
            off: false,
            verdict: None,
            live: LiveConfig { supported: true, ..LiveConfig::default() },
            kept: BTreeMap::new(),
            kept_live: (0, 0),
            staging_failed: false,
            skew,
            silent: (Timestamp::MIN, Timestamp::MIN),
            flaps_until: Timestamp::MIN,
            rested_at: None,
            waits: false,
        };
        agent.report(now + skew);
        agent
    }

    /// The state partition is lost.
    pub fn lose_memory(&mut self) {
        self.journal = Journal::default();
        self.verdict = None;
        self.live = LiveConfig { supported: true, ..LiveConfig::default() };
        self.kept.clear();
        self.reset_done = None;
        self.rested_at = None;
    }

    /// It does not run for a while.
    pub fn silence(&mut self, from: Timestamp, until: Timestamp) {
        if self.fate != Fate::GoesSilent {
            self.silent = (from, until);
        }
    }

    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.silent.0 <= now && now < self.silent.1
    }

    pub fn flap(&mut self, until: Timestamp) {
        self.flaps_until = until;
    }

    pub fn flaps(&self, now: Timestamp) -> bool {
        now < self.flaps_until
    }

    /// Nothing came of a step with this version of its plan. A trial ends by itself, whatever the plan says.
    pub fn rest(&mut self, plan: u64) {
        let on_trial = self.on_trial() || self.tries_live();
        self.rested_at = Some(plan).filter(|_| self.waits && !on_trial);
    }

    /// Whether nothing will come of the next step either.
    pub fn rests(&self, plan: u64) -> bool {
        self.rested_at == Some(plan)
    }

    fn facts(&self, now: Timestamp) -> Facts {
        let content = |digest: &String| SlotContent {
            image: format!("registry.example/os@{digest}"),
            digest: digest.clone(),
            version: "1".into(),
            // Nothing is decided by it, and a status changes only when something happens.
            written_at: Timestamp::UNIX_EPOCH,
        };
        let fact = |(name, slot): (&&str, &Slot)| SlotFact {
            content: slot.digest.as_ref().map(content),
            entry: slot.entry,
            generation: slot.generation,
            ..SlotFact::empty(name)
        };
        Facts {
            recovery: Some(SlotFact {
                content: self.recovery.as_ref().map(content),
                entry: if self.recovery.is_some() { EntryFact::Permanent } else { EntryFact::Absent },
                ..SlotFact::empty("recovery")
            }),
            running: Some(self.running()),
            slots: self.slots.iter().map(fact).collect(),
            reset_requested: self.requested.clone(),
            reset_done: self.reset_done.clone(),
            live: self.live(),
            verdict: self.verdict.clone(),
            // Checks take a while after the boot.
            host_checks_passed: self.on_trial() && now > self.booted_at || self.tries_live(),
            now,
        }
    }

    fn running(&self) -> RunningSlot {
        let digest = self.slots[self.running].digest.clone().expect("only a complete slot runs");
        RunningSlot { name: self.running.into(), digest, boot_id: self.boot_id.clone() }
    }

    fn on_trial(&self) -> bool {
        self.slots[self.running].entry != EntryFact::Permanent
    }

    fn report(&mut self, now: Timestamp) {
        let host = HostFacts { manageable: true, ..HostFacts::default() };
        self.status = status(&self.journal, &self.facts(now), None, host, None, Some(&self.status));
    }

    /// The boot loader: highest generation first; what has no tries left is passed over.
    fn boot(&mut self, boot_id: &str, bad: &str, now: Timestamp) {
        let fails = self.fate == Fate::ImageFails;
        (self.off, self.booted_at) = (false, now);
        boot_id.clone_into(&mut self.boot_id);
        loop {
            let bootable =
                |slot: &Slot| !matches!(slot.entry, EntryFact::Absent | EntryFact::Trial { left: 0 });
            let slots = self.slots.iter_mut().filter(|(_, slot)| bootable(slot));
            let (name, slot) = slots.max_by_key(|(_, slot)| slot.generation).expect("a slot is bootable");
            if let EntryFact::Trial { left } = &mut slot.entry {
                *left -= 1;
            }
            let digest = slot.digest.as_deref().expect("the loader boots complete slots only");
            if fails && digest == bad {
                continue;
            }
            self.running = name;
            self.initrd();
            if let Some(boots) = self.live().count_boot(&self.running()) {
                self.live.boots = Some(boots);
            }
            return;
        }
    }

    /// Carries out what it was asked for this slot.
    fn initrd(&mut self) {
        let Some(request) = self.requested.take_if(|request| request.slot == self.running) else { return };
        let asked = request.asked.expect("nobody else asks");
        assert!(self.resets.insert(asked.id.clone()), "it began anew twice for one order");
        if request.wipe_state {
            self.lose_memory();
        }
        self.reset_done = Some(asked.id);
    }

    /// The guard ends a trial that nobody kept.
    fn guard(&mut self, now: Timestamp) {
        if self.on_trial() && now >= self.booted_at + TRIAL {
            let slot = self.slots.get_mut(self.running).expect("it runs");
            slot.entry = EntryFact::Absent;
            let digest = slot.digest.clone().expect("it runs");
            self.verdict =
                Some(Verdict { digest, cause: RollbackCause::Deadline, message: "no commit came".into() });
            self.off = true;
        }
    }

    fn slot(&mut self, name: &str) -> &mut Slot {
        self.slots.get_mut(name).expect("there are two slots")
    }

    fn act(&mut self, action: &Action) -> Outcome {
        let newest = self.slots.values().map(|slot| slot.generation).max().unwrap_or(0);
        match action {
            Action::Wait | Action::WaitUntil(_) => {}
            Action::Stage { .. } if self.fate == Fate::StagingFails && !self.staging_failed => {
                self.staging_failed = true;
                let message = "the disk is full".into();
                return Outcome::Failed(PlanError { reason: "DiskFull".into(), message, retryable: false });
            }
            Action::Stage { slot: name, .. } => {
                assert_ne!(name, self.running, "the running slot must never be written");
                let digest = self.journal.attempt.as_ref().map(|attempt| attempt.digest.clone());
                *self.slot(name) = Slot { digest, entry: EntryFact::Absent, generation: 0 };
                return Outcome::Staged(StagingCost::default());
            }
            Action::Activate { slot: name } => {
                self.kept.remove(name.as_str());
                let slot = self.slot(name);
                (slot.entry, slot.generation) = (EntryFact::Trial { left: TRIAL_TRIES }, newest + 1);
            }
            Action::Commit { slot: name } => self.slot(name).entry = EntryFact::Permanent,
            Action::Disarm { slot: name } => self.slot(name).entry = EntryFact::Absent,
            Action::RevertTrial { slot: name } | Action::RevertCommitted { from: name, .. } => {
                self.slot(name).entry = EntryFact::Absent;
                self.off = true;
            }
            Action::Reboot => self.off = true,
            Action::BeginAnew(request) => {
                assert!(!self.on_trial(), "a trial must not begin anew");
                self.requested = Some(request.clone());
                self.off = true;
            }
            Action::WithdrawReset => self.requested = None,
            Action::Live(action) => return self.act_live(*action),
            Action::WriteRecovery { .. }
                if self.fate == Fate::StagingFails && self.journal.recovery.is_none() =>
            {
                let message = "the registry is away".into();
                return Outcome::Failed(PlanError {
                    reason: "RegistryAway".into(),
                    message,
                    retryable: true,
                });
            }
            Action::WriteRecovery { image } => {
                self.recovery = image.rsplit_once('@').map(|(_, digest)| digest.to_owned());
            }
        }
        Outcome::Done
    }

    /// One step. `bad` is the digest that does not boot on nodes of that fate.
    pub fn step(&mut self, node: &mut NodeSeen, (boot, bad): (&str, &str), fault: Fault, now: Timestamp) {
        let runs = !self.is_silent(now);
        let now = now + self.skew;
        self.waits = false;
        if self.off {
            node.ready = false;
            if self.fate != Fate::NeverReturns {
                self.boot(boot, bad, now);
                boot.clone_into(&mut node.boot_id);
            }
            return;
        }
        node.ready |= now > self.booted_at && node.boot_id == self.boot_id;
        self.guard(now);
        self.unit(now);
        if runs {
            self.live.boots = None;
            self.follow(node.plan.as_ref().map(|plan| &*plan.spec), fault, now);
            self.report(now);
            if let Some(plan) = &mut node.plan {
                *plan.status = self.status.clone();
            }
        }
        if self.off {
            node.ready = false;
        }
    }

    /// What the agent does in a step: it takes up where it was, and does the next thing.
    fn follow(&mut self, spec: Option<&NodePlanSpec>, fault: Fault, now: Timestamp) {
        let orders = spec.and_then(Orders::of);
        self.journal = resume(&self.journal, orders.as_ref(), &self.facts(now));
        let (journal, mut action) = next(&self.journal, orders.as_ref(), &self.facts(now));
        self.journal = journal;
        if let (Action::Wait, Some(spec)) = (&action, spec) {
            let (facts, anew, wanted) = (self.facts(now), spec.reset.as_ref(), spec.recovery_image());
            self.journal = reset::notice(&forget(&self.journal, wanted, &facts), anew, &facts);
            let anew = reset::begin_anew(&self.journal, anew, &facts);
            action = anew.or_else(|| write_recovery(&self.journal, wanted, &facts)).unwrap_or(Action::Wait);
        }
        if self.off {
            return;
        }
        self.waits = action == Action::Wait;
        let facts = self.facts(now);
        let outcome = self.act(&action);
        if fault == Fault::None {
            self.journal = record(&self.journal, &action, outcome, &facts);
        }
        self.off |= fault == Fault::PowerCut && self.fate != Fate::NeverReturns;
    }
}

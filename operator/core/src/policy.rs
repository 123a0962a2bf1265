//! What is wanted, validated: nothing in here can be wrong in a way that the planner would have to handle.

use evenkeel_crds::{
    cloud_config::{OrderedCloudConfig, digest_of, release},
    drain::Drain,
    health_gate::HealthGate,
    hook::Hook,
    managed_os_image::{ManagedOSImageSpec, Pull, Reboot, Rejected},
    node_plan::{Booted, NodePlanSpec},
    quantity::{CountOrPercent, NotACount},
    rollout::{FailurePolicy, Order, Pause, Rollout, Step},
    rollout_status::{Denied, Progress, RunNow},
    verification::Verification,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    schedule::{Schedule, ScheduleError},
    wishes::Approved,
};

/// Nodes that pull and write at once, unless the image says otherwise.
const MAX_STAGING_DEFAULT: usize = 10;

/// What is wanted.
// Each flag is a wish of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name of the image object.
    pub name: String,
    /// UID of the image object.
    pub uid: String,
    /// When the image object was made, if that is known.
    pub created: Option<Timestamp>,
    /// The image, `repository@sha256:…`; absent while its reference is not resolved, and then nothing is started.
    pub image: Option<String>,
    /// What nodes are configured by, beside the image.
    pub cloud_config: Option<OrderedCloudConfig>,
    /// The image that recovery slots shall hold, `repository@sha256:…`.
    pub recovery_image: Option<String>,
    /// How many nodes may be unavailable.
    pub max_unavailable: CountOrPercent,
    /// How many nodes of one domain may be unavailable; absent without a limit of its own.
    pub max_unavailable_per_domain: Option<CountOrPercent>,
    /// Whether a domain is finished before the next one.
    pub one_domain_at_a_time: bool,
    /// How many nodes may pull and write at once.
    pub max_staging: usize,
    /// Where control-plane nodes stand in the queue.
    pub order: Order,
    /// How long a node must stay healthy.
    pub soak: SignedDuration,
    /// What comes first.
    pub steps: Vec<Step>,
    /// When nodes may be started.
    pub schedule: Schedule,
    /// When nodes may begin to stage.
    pub staging_schedule: Schedule,
    /// What a failure means.
    pub failure: FailurePolicy,
    /// The spec's part on rollouts, as it was written.
    pub rollout: Rollout,
    /// Who wants that nothing is started.
    pub pauses: Vec<Pause>,
    /// Whether nothing is begun at all.
    pub dry_run: bool,
    /// What must be true of a node and the cluster, besides `Ready`.
    pub gates: Vec<HealthGate>,
    /// What is run at steps of a node's turn.
    pub hooks: Vec<Hook>,
    /// Whether nodes are cordoned.
    pub cordon: bool,
    /// How pods leave.
    pub drain: Drain,
    /// Time limits.
    pub reboot: Reboot,
    /// The oldest version from which a node may go to the image ([`crate::channel::order::may_start_from`] judges).
    pub minimum: Option<String>,
    /// How the image is pulled.
    pub pull: Pull,
    /// Who must have signed the image.
    pub verification: Option<Verification>,
    /// The failure that was written down when the rollout stopped.
    pub rejected: Option<Rejected>,
    /// Images that nodes came back from.
    pub denied: Vec<Denied>,
    /// How far the rollout was at the last look.
    pub progress: Option<Progress>,
    /// Somebody's wish that windows are ignored.
    pub run_now: Option<RunNow>,
    /// Somebody's word that the rollout goes on after a step.
    pub approved: Option<Approved>,
    /// What may be tried although it failed, as [`Policy::release`] names it.
    pub allowed: Option<String>,
    /// Whether the image object is being deleted: let go of all nodes.
    pub deleting: bool,
}

/// Why a spec cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// The budget is none.
    #[error("rollout.maxUnavailable: {0}")]
    MaxUnavailable(#[from] NotACount),
    /// The image is not pinned.
    #[error("the image {0} is not pinned by a sha256 digest")]
    NotPinned(String),
    /// The budget of a domain is none.
    #[error("rollout.maxUnavailablePerDomain: {0}")]
    PerDomain(NotACount),
    /// The number of nodes of a step is none.
    #[error("rollout.steps[{0}].nodes: {1}")]
    Step(usize, NotACount),
    /// The number of failures is none.
    #[error("rollout.failurePolicy.maxFailures: {0}")]
    MaxFailures(NotACount),
    /// Windows cannot be understood.
    #[error("rollout.{0}: {1}")]
    Schedule(&'static str, ScheduleError),
}

impl Policy {
    /// Validates `spec`, whose image was resolved to `image`, if it was.
    pub fn new(
        name: &str,
        uid: &str,
        spec: &ManagedOSImageSpec,
        image: Option<&str>,
    ) -> Result<Self, PolicyError> {
        if let Some(image) = image.filter(|image| !image.contains("@sha256:")) {
            return Err(PolicyError::NotPinned(image.to_owned()));
        }
        let count = spec.concurrency.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let max_unavailable = match &spec.rollout.max_unavailable {
            Some(value) => CountOrPercent::try_from(value)?,
            None => CountOrPercent::Count(count.max(1)),
        };
        let rollout = &spec.rollout;
        if let Some(value) = &rollout.failure_policy.max_failures {
            CountOrPercent::tolerated(value, 0).map_err(PolicyError::MaxFailures)?;
        }
        for (number, step) in rollout.steps.iter().enumerate() {
            step_nodes(step).map_err(|error| PolicyError::Step(number, error))?;
        }
        let per_domain =
            rollout.max_unavailable_per_domain.as_ref().filter(|_| rollout.topology_key.is_some());
        let per_domain =
            per_domain.map(CountOrPercent::try_from).transpose().map_err(PolicyError::PerDomain)?;
        let max_staging = spec.rollout.max_staging.and_then(|count| usize::try_from(count).ok());
        Ok(Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            created: None,
            image: image.map(str::to_owned),
            cloud_config: None,
            recovery_image: spec.recovery_image.clone(),
            max_unavailable,
            max_unavailable_per_domain: per_domain,
            one_domain_at_a_time: rollout.one_domain_at_a_time && rollout.topology_key.is_some(),
            max_staging: max_staging.unwrap_or(MAX_STAGING_DEFAULT).max(1),
            order: spec.rollout.order,
            soak: SignedDuration::from_secs(spec.rollout.soak_seconds),
            steps: rollout.steps.clone(),
            schedule: Schedule::new(&rollout.windows, &rollout.exclusions)
                .map_err(|error| PolicyError::Schedule("windows", error))?,
            staging_schedule: Schedule::new(&rollout.staging_windows, &[])
                .map_err(|error| PolicyError::Schedule("stagingWindows", error))?,
            failure: rollout.failure_policy.clone(),
            rollout: rollout.clone(),
            pauses: spec.rollout.pauses.clone(),
            dry_run: spec.dry_run,
            gates: spec.health_gates.clone(),
            hooks: spec.hooks.clone(),
            cordon: spec.cordon || spec.drain.enabled,
            drain: spec.drain.clone(),
            reboot: spec.reboot.clone(),
            minimum: None,
            pull: spec.pull.clone(),
            verification: spec.verification.clone(),
            rejected: None,
            denied: Vec::new(),
            progress: None,
            run_now: None,
            approved: None,
            allowed: None,
            deleting: false,
        })
    }

    /// With how many failed nodes out of `size` the rollout goes on.
    pub fn tolerated(&self, size: usize) -> usize {
        let tolerated =
            self.failure.max_failures.as_ref().map(|value| CountOrPercent::tolerated(value, size));
        tolerated.transpose().ok().flatten().unwrap_or(0)
    }

    /// What nodes are to run: the image's digest, and with a cloud-config a part of that one's. It is what a rollout is of.
    pub fn release(&self) -> Option<String> {
        let digest = digest_of(self.image.as_ref()?)?;
        Some(release(digest, self.cloud_config.as_ref().map(|config| config.sha256.as_str())))
    }

    /// Whether a node runs what it is to run. Asked of every node, several times in a look: most are told apart by the image
    /// alone.
    pub fn is_run_by(&self, booted: &Booted) -> bool {
        let digest = self.image.as_deref().and_then(digest_of);
        match digest.and_then(|digest| booted.digest.strip_prefix(digest)) {
            None => false,
            Some("") => self.cloud_config.is_none(),
            Some(_) => self.release().as_ref() == Some(&booted.digest),
        }
    }

    /// Whether a change of the cloud-config alone needs no reboot.
    pub fn applies_live(&self) -> bool {
        !self.reboot.on_cloud_config_change
    }

    /// Whether a node that runs this needs no reboot to run what it is to run.
    pub fn needs_no_reboot(&self, booted: &Booted) -> bool {
        let digest = self.image.as_deref().and_then(digest_of);
        let same_image = digest.is_some() && booted.digest.split('+').next() == digest;
        self.applies_live() && same_image && !self.is_run_by(booted)
    }

    /// Whether an order is for what nodes are to run.
    pub fn is_ordered_by(&self, spec: &NodePlanSpec) -> bool {
        let (ordered, wanted) = (spec.cloud_config.as_ref(), self.cloud_config.as_ref());
        spec.image == self.image
            && ordered.map(|config| &config.sha256) == wanted.map(|config| &config.sha256)
    }

    /// Identity of an attempt: the same for every operator that comes to decide it, so that one that was killed
    /// between two writes goes on instead of beginning again.
    pub fn plan_id(&self, attempt: i32) -> String {
        format!("{}-{attempt}", self.plan_id_begin())
    }

    /// Which attempt with this image a plan's identity stands for; absent if it is another image's.
    pub fn attempt_of(&self, plan_id: &str) -> Option<i32> {
        plan_id.strip_prefix(&self.plan_id_begin())?.strip_prefix('-')?.parse().ok()
    }

    fn plan_id_begin(&self) -> String {
        let release = self.release().unwrap_or_default();
        format!("{}-{}", beginning(&self.uid, 8), short(&release).replace('+', "-"))
    }

    /// The first pause that holds at `now`.
    pub fn pause(&self, now: Timestamp) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.until.is_none_or(|until| now < until.0))
    }
}

/// So much of a [release](Policy::release) as tells it from others: twelve digits of the digest, and eight of a
/// cloud-config's.
pub(crate) fn short(release: &str) -> String {
    let release = release.trim_start_matches("sha256:");
    match release.split_once('+') {
        None => beginning(release, 12).to_owned(),
        Some((digest, config)) => format!("{}+{}", beginning(digest, 12), beginning(config, 8)),
    }
}

/// The first characters of a text, as many of them as there are.
fn beginning(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

/// How many nodes a step wants, if it says so by number.
pub(crate) fn step_nodes(step: &Step) -> Result<Option<CountOrPercent>, NotACount> {
    step.nodes.as_ref().map(CountOrPercent::try_from).transpose()
}

//! From what an image object asks for to the digest that its nodes get: once per rollout.

use std::time::{Duration, Instant};

use evenkeel_crds::{
    ManagedOSImage, ManagedOSVersion,
    following::ChannelPosition,
    managed_os_image::Pull,
    names::{APPROVED_BY, APPROVED_VERSION},
    verification::Verification,
};
use evenkeel_operator_core::channel::order;
use evenkeel_registry::{Limits, Registry, RegistryError, RegistryOptions, Resolved};
use evenkeel_trust::{Policy, PolicyError, Refusal, Subject, SubjectError};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::{api::with_causes, seen::Seen, status::Problem};

/// First pause after a failure; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Longest pause: a registry that was away all night is found again soon after it is back.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// A few small requests; a registry that needs longer is treated as one that is away.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// What an image object asks for: a reference that a registry understands.
pub fn reference(image: &ManagedOSImage, seen: &Seen) -> Result<String, Problem> {
    if let Some(image) = &image.spec.os_image {
        return Ok(image.clone());
    }
    // What was let in is an image, whatever becomes of the version's object.
    if let Some(followed) = position(image).and_then(|position| position.image.clone()) {
        return Ok(followed);
    }
    let Some(version) = version(image, seen)? else { return Err(no_version(image)) };
    version.spec.metadata.upgrade_image.clone().ok_or_else(|| {
        let name = version.name_any();
        missing(format!(
            "ManagedOSVersion {name} has no upgradeImage: only a version of type container can be run"
        ))
    })
}

/// The oldest version from which nodes may go to what an image object asks for, if it says so.
pub fn minimum(image: &ManagedOSImage, seen: &Seen) -> Option<String> {
    match position(image).filter(|position| position.version.is_some()) {
        // As its image, whatever becomes of the version's object.
        Some(followed) => followed.min_version.clone(),
        None => version(image, seen).ok()??.spec.min_version,
    }
}

/// The version that an image object names, or that its channel has for it; `None` if it names none.
fn version(image: &ManagedOSImage, seen: &Seen) -> Result<Option<ManagedOSVersion>, Problem> {
    let followed = position(image).and_then(|position| position.version.clone());
    let Some(name) = image.spec.managed_os_version_name.clone().or(followed) else { return Ok(None) };
    let Some(version) = seen.versions.get(&name) else {
        return Err(missing(format!("there is no ManagedOSVersion {name}: create it, or name another one")));
    };
    match &version.0 {
        Ok(version) => Ok(Some(version.clone())),
        Err(invalid) => Err(missing(format!("ManagedOSVersion {name} cannot be read: {}", invalid.error))),
    }
}

/// Where an image object is in the channel that it follows.
fn position(image: &ManagedOSImage) -> Option<&ChannelPosition> {
    let channel = image.spec.channel.as_ref()?;
    let position = image.status.as_ref()?.channel.as_ref()?;
    Some(position).filter(|position| position.name == channel.name)
}

fn missing(message: String) -> Problem {
    Problem::lasting("ManagedOSVersionNotFound", message)
}

/// Why an image object that follows a channel has no version yet.
fn no_version(image: &ManagedOSImage) -> Problem {
    // Admission requires one of the three.
    let channel = image.spec.channel.clone().unwrap_or_default();
    if let Err(error) = order::constraint(channel.constraint.as_deref()) {
        return Problem::lasting("InvalidConstraint", format!("channel.constraint: {error}"));
    }
    match position(image).and_then(|position| position.available.as_ref()) {
        Some(version) => Problem::lasting(
            "WaitsForApproval",
            format!(
                "version {version} waits for approval: kubectl annotate managedosimage {} {APPROVED_VERSION}={version} \
                 {APPROVED_BY}=YOU",
                image.name_any()
            ),
        ),
        None => Problem::passing(
            "NoVersion",
            format!(
                "channel {} lists no version of type container that satisfies the constraint: look at \
                 ManagedOSVersionChannel {}",
                channel.name, channel.name
            ),
        ),
    }
}

/// The digest that was resolved before, if it was from the same reference.
pub fn known(image: &ManagedOSImage, reference: &str) -> Option<String> {
    let status = image.status.as_ref()?;
    (status.resolved_from.as_deref() == Some(reference)).then(|| status.image.clone()).flatten()
}

/// Whether the image in the status was checked against those who must have signed it now.
pub fn is_verified(image: &ManagedOSImage) -> bool {
    let by = image.status.as_ref().and_then(|status| status.verified_by.clone());
    image.spec.verification.is_none() || by == fingerprint(image.spec.verification.as_ref())
}

/// SHA-256 of who must have signed, in hexadecimal digits.
pub fn fingerprint(verification: Option<&Verification>) -> Option<String> {
    let text = serde_json::to_vec(verification?).expect("plain data always serialises");
    Some(Sha256::digest(text).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// The tag of a reference, if it has one.
pub fn tag(reference: &str) -> Option<String> {
    let name = reference.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    // Without a slash a colon begins a port.
    let (_, tag) = last.split_once(':').filter(|_| name.contains('/'))?;
    Some(tag.to_owned())
}

/// A reference, and how its registry is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What an image object asks for.
    pub reference: String,
    /// What it was resolved to before, and is to be checked anew; the tag is not asked for again.
    pub pinned: Option<String>,
    /// How its registry is spoken to.
    pub pull: Pull,
    /// Who must have signed the image.
    pub verification: Option<Verification>,
}

/// Why nothing is taken from a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Subject(#[from] SubjectError),
}

impl Unresolved {
    /// The reason as the API shows it, and whether it may pass by itself.
    pub(crate) fn reason(&self) -> (&'static str, bool) {
        match self {
            Self::Registry(error) => (error.reason(), error.retryable()),
            Self::Refused(refusal) => (refusal.reason(), false),
            Self::Policy(_) => ("InvalidVerification", false),
            Self::Subject(_) => ("InvalidReference", false),
        }
    }

    fn problem(self) -> Problem {
        let (reason, passing) = self.reason();
        Problem { reason: reason.to_owned(), message: with_causes(&self), passing }
    }
}

/// The rules that an object's `verification` makes.
pub(crate) fn policy(verification: Option<&Verification>) -> Result<Option<Policy>, Unresolved> {
    Ok(verification.map(Policy::try_from).transpose()?)
}

/// Fails unless `image`, which names its digest, was signed as the rules want it; without rules everything is.
pub(crate) async fn check_signatures(
    registry: &Registry,
    image: &str,
    policy: Option<&Policy>,
) -> Result<(), Unresolved> {
    let Some(policy) = policy else { return Ok(()) };
    let subject: Subject = image.parse()?;
    Ok(policy.check(&subject, &registry.signatures(&subject).await?)?)
}

/// A patience that ends before `RESOLVE_TIMEOUT`, so that what is told is what the registry said: 4 × 5 + 3.5 s for one
/// that cannot be reached, 5 + 5 + 8 s for one that is busy. It is asked again later, as [`Failure::pause`] says.
pub fn limits() -> Limits {
    let few = Duration::from_secs(5);
    Limits { connect: few, retry_after_max: few, ..Limits::default() }
}

/// What the registry says, in limited time, with a failure as a problem to show.
pub async fn resolve(question: &Question, options: RegistryOptions) -> Result<Resolved, Problem> {
    match timeout(RESOLVE_TIMEOUT, ask(question, options)).await {
        Ok(answer) => answer.map_err(Unresolved::problem),
        Err(_) => Err(Problem::passing(
            "RegistryUnreachable",
            format!(
                "the registry did not say within {} s what {} is: is it up, and can the operator reach it?",
                RESOLVE_TIMEOUT.as_secs(),
                question.reference
            ),
        )),
    }
}

/// Asks what a reference is, and whether it was signed: then no node is told to fetch what none would take.
async fn ask(question: &Question, options: RegistryOptions) -> Result<Resolved, Unresolved> {
    let Question { reference, pinned, pull, verification } = question;
    let policy = policy(verification.as_ref())?;
    // A new client each time: certificates may have changed.
    let registry = Registry::new(RegistryOptions { pull: pull.clone(), ..options })?;
    let resolved = registry.resolve(pinned.as_ref().unwrap_or(reference)).await?;
    check_signatures(&registry, &resolved.image, policy.as_ref()).await?;
    Ok(resolved)
}

/// A reference that could not be resolved, and when to ask again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was asked, and how.
    pub asked: Question,
    /// What the registry said.
    pub problem: Problem,
    failures: u32,
    next: Instant,
}

impl Failure {
    /// The failure of asking for `asked`; `before` is the last one of this image object.
    pub fn new(asked: Question, problem: Problem, before: Option<&Self>, now: Instant) -> Self {
        let failures = before.filter(|before| before.asked == asked).map_or(0, |before| before.failures) + 1;
        let pause = RETRY_MIN.saturating_mul(1 << (failures - 1).min(10)).min(RETRY_MAX);
        Self { asked, problem, failures, next: now + pause }
    }

    /// How long to wait before asking again; nothing if something else is asked now.
    pub fn pause(&self, asked: &Question, now: Instant) -> Option<Duration> {
        if self.asked != *asked {
            return None;
        }
        self.next.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_follows_the_last_part_of_the_name() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(tag("registry.example:5000/os:1.2").as_deref(), Some("1.2"));
        assert_eq!(tag(&format!("registry.example/os:1@{digest}")).as_deref(), Some("1"));
        assert_eq!(tag(&format!("registry.example:5000/os@{digest}")), None);
        assert_eq!(tag("registry.example:5000"), None);
    }

    #[test]
    fn from_where_nodes_may_come_is_known_without_the_versions_object() {
        let image = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "os" }, "spec": { "channel": { "name": "stable" } },
            "status": { "channel": { "name": "stable", "version": "v2", "image": "r.example/os:2", "minVersion": "1.5" } },
        }));
        assert_eq!(minimum(&image.unwrap(), &Seen::nothing()).as_deref(), Some("1.5"));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_a_new_reference_is_asked_at_once() {
        let now = Instant::now();
        let asked = Question {
            reference: "registry.example/os:1".into(),
            pinned: None,
            pull: Pull::default(),
            verification: None,
        };
        let plain = Pull { plain_http: true, ..Pull::default() };
        let problem = Problem::passing("RegistryUnreachable", "away".into());
        let mut failure = Failure::new(asked.clone(), problem.clone(), None, now);
        assert_eq!(failure.pause(&asked, now), Some(RETRY_MIN));
        assert_eq!(failure.pause(&asked, now + RETRY_MIN), None);
        assert_eq!(
            failure.pause(&Question { reference: "registry.example/os:2".into(), ..asked.clone() }, now),
            None
        );
        assert_eq!(failure.pause(&Question { pull: plain, ..asked.clone() }, now), None);
        for _ in 0..40 {
            failure = Failure::new(asked.clone(), problem.clone(), Some(&failure), now);
        }
        assert_eq!(failure.pause(&asked, now), Some(RETRY_MAX));
    }
}

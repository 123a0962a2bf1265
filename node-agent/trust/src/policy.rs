//! Which keys must have signed what.

use std::num::NonZeroUsize;

use evenkeel_crds::verification::{Verification, VerificationRule};

use crate::{
    Evidence, Fault, KeyError, Pattern, PatternError, PublicKey, Refusal, Subject,
    form::{Malformed, Sealed},
};

/// Why rules cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Nothing would ever be trusted.
    #[error("verification has no rules: add one, or leave verification out")]
    NoRules,
    /// A key.
    #[error("verification.rules[{rule}].keys[{key}]: {source}")]
    Key {
        /// Which rule, from 0.
        rule: usize,
        /// Which key, from 0.
        key: usize,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A key that is there already would be counted twice.
    #[error("verification.rules[{rule}].keys[{key}] is there twice: leave it out once")]
    SameKey {
        /// Which rule, from 0.
        rule: usize,
        /// Which key, from 0.
        key: usize,
    },
    /// Repositories.
    #[error("verification.rules[{rule}].repositories: {source}")]
    Repository {
        /// Which rule, from 0.
        rule: usize,
        /// What is wrong with them.
        source: PatternError,
    },
    /// More than there are, or none.
    #[error(
        "verification.rules[{rule}].threshold is {threshold}: it must be from 1 to the number of keys, {keys}"
    )]
    Threshold {
        /// Which rule, from 0.
        rule: usize,
        /// What it says.
        threshold: i32,
        /// How many keys there are.
        keys: usize,
    },
}

/// Which keys must have signed what: each rule that covers an image's repository has to be satisfied, and at least one
/// must cover it. So a rule that is added never lets in what was refused before, but for repositories that had none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    repositories: Vec<Pattern>,
    keys: Vec<PublicKey>,
    threshold: NonZeroUsize,
}

impl TryFrom<&Verification> for Policy {
    type Error = PolicyError;

    fn try_from(verification: &Verification) -> Result<Self, PolicyError> {
        let rules = verification.rules.iter().enumerate();
        let rules = rules.map(|(at, rule)| Rule::read(at, rule)).collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() { Err(PolicyError::NoRules) } else { Ok(Self { rules }) }
    }
}

impl Policy {
    /// Says at once what no signature could change.
    pub fn covers(&self, subject: &Subject) -> Result<(), Refusal> {
        self.rules_on(subject).next().map(|_| ()).ok_or_else(|| Refusal::NotCovered(subject.clone()))
    }

    /// Whether the signatures in `evidence`, which is all that the registry holds for `subject`, are those that it must
    /// have.
    pub fn check(&self, subject: &Subject, evidence: &[Evidence]) -> Result<(), Refusal> {
        self.covers(subject)?;
        if evidence.is_empty() {
            return Err(Refusal::NotSigned(subject.clone()));
        }
        self.rules_on(subject).try_for_each(|rule| rule.check(subject, evidence))
    }

    fn rules_on(&self, subject: &Subject) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.repositories.iter().any(|one| one.covers(subject.repository())))
    }
}

impl Rule {
    fn read(at: usize, rule: &VerificationRule) -> Result<Self, PolicyError> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for (index, pem) in rule.keys.iter().enumerate() {
            let key = PublicKey::from_pem(pem);
            let key = key.map_err(|source| PolicyError::Key { rule: at, key: index, source })?;
            if keys.contains(&key) {
                return Err(PolicyError::SameKey { rule: at, key: index });
            }
            keys.push(key);
        }
        let repositories = rule.repositories.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
        let repositories = repositories.map_err(|source| PolicyError::Repository { rule: at, source })?;
        let threshold = usize::try_from(rule.threshold).ok().and_then(NonZeroUsize::new);
        let threshold = threshold.filter(|threshold| threshold.get() <= keys.len());
        let threshold = threshold.ok_or(PolicyError::Threshold {
            rule: at,
            threshold: rule.threshold,
            keys: keys.len(),
        })?;
        Ok(Self { repositories, keys, threshold })
    }

    fn check(&self, subject: &Subject, evidence: &[Evidence]) -> Result<(), Refusal> {
        let mut signed: Vec<&PublicKey> = Vec::new();
        let mut faults = Vec::new();
        for one in evidence {
            match self.signer(subject, one) {
                Ok(key) if signed.contains(&key) => {}
                Ok(key) => signed.push(key),
                Err(fault) => faults.push(fault),
            }
        }
        if signed.len() >= self.threshold.get() {
            return Ok(());
        }
        let (subject, wanted) = (subject.clone(), format!("{} of {}", self.threshold, named(&self.keys)));
        Err(if signed.is_empty() {
            Refusal::WrongSignature { subject, wanted, faults }
        } else {
            Refusal::TooFewSignatures { subject, signed: named(signed), wanted, faults }
        })
    }

    /// The key that signed `subject`.
    fn signer(&self, subject: &Subject, evidence: &Evidence) -> Result<&PublicKey, Fault> {
        let malformed = |Malformed(what)| Fault::Malformed(what);
        let sealed = Sealed::open(evidence).map_err(malformed)?;
        let message = sealed.message();
        let key = self.keys.iter().find(|key| key.signed(&message, &sealed.signature));
        let key = key.ok_or(Fault::UnknownKey)?;
        let digests = sealed.digests().map_err(malformed)?;
        if digests.contains(&subject.digest()) {
            return Ok(key);
        }
        Err(Fault::OtherDigest(digests.into_iter().next().unwrap_or_else(|| "none".into())))
    }
}

fn named<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> String {
    let keys: Vec<String> = keys.into_iter().map(|key| format!("key {key}")).collect();
    keys.join(", ")
}

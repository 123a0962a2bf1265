//! Why an image is not trusted.

use crate::Subject;

/// What is wrong with one thing that could have been a signature.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// Not a signature that can be checked.
    #[error("one {0}")]
    Malformed(String),
    /// Whoever made it, it was none of the keys; or it was changed since.
    #[error("one was made by none of the keys, or was changed since")]
    UnknownKey,
    /// A key of ours signed another image.
    #[error("one is by a right key and for another digest, {0}")]
    OtherDigest(String),
}

/// Faults that a message tells of.
const FAULTS_SHOWN: usize = 4;

/// Why an image is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No rule is about its repository.
    #[error(
        "no verification rule names the repository of {0}: add a rule with its keys, or take the image from a \
         repository that has one"
    )]
    NotCovered(Subject),
    /// There is nothing.
    #[error(
        "{0} is not signed: sign it with `cosign sign --key KEY {0}`, for the digest that the reference names"
    )]
    NotSigned(Subject),
    /// There is something, and it does not count.
    #[error(
        "{subject} is not signed by {wanted}{}: sign it with `cosign sign --key KEY {subject}`, or correct the keys",
        found(.faults)
    )]
    WrongSignature {
        /// The image.
        subject: Subject,
        /// How many of which keys must have signed.
        wanted: String,
        /// What is there.
        faults: Vec<Fault>,
    },
    /// Some keys have signed, and not enough of them.
    #[error(
        "{subject} is signed by {signed} alone, and {wanted} must have signed it{}: have the others sign it too",
        found(.faults)
    )]
    TooFewSignatures {
        /// The image.
        subject: Subject,
        /// Keys that have signed.
        signed: String,
        /// How many of which keys must have signed.
        wanted: String,
        /// What else is there.
        faults: Vec<Fault>,
    },
}

impl Refusal {
    /// The kind of refusal, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotCovered(_) => "RepositoryNotTrusted",
            Self::NotSigned(_) => "NotSigned",
            Self::WrongSignature { .. } => "WrongSignature",
            Self::TooFewSignatures { .. } => "TooFewSignatures",
        }
    }
}

fn found(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return String::new();
    }
    let mut shown: Vec<String> = faults.iter().take(FAULTS_SHOWN).map(Fault::to_string).collect();
    if faults.len() > FAULTS_SHOWN {
        shown.push(format!("and {} more", faults.len() - FAULTS_SHOWN));
    }
    format!(" (of the signatures that are there {})", shown.join("; "))
}

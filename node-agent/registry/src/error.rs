//! What can go wrong between a reference and the last byte of its layers.

use std::{io, path::PathBuf};

use oci_client::{ParseError, errors::OciDistributionError};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The library makes no client without certificates to trust, not even for plain HTTP.
    #[error(
        "set up the registry client: is the package ca-certificates installed, or its bundle in the container?"
    )]
    Client(#[source] OciDistributionError),
    /// Not a reference.
    #[error(
        "{image:?} is not an image reference: write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:…"
    )]
    Reference {
        /// What was given.
        image: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A digest that cannot be checked.
    #[error("the digest {digest:?} of {image} is not a sha256 digest: only those are supported")]
    DigestAlgorithm {
        /// The image.
        image: String,
        /// The digest.
        digest: String,
    },
    /// The registry did not answer.
    #[error(
        "registry {registry} cannot be reached over {scheme}: check its name, the network between, its certificate, and \
         whether it speaks plain HTTP"
    )]
    Unreachable {
        /// Its name.
        registry: String,
        /// `http` or `https`.
        scheme: &'static str,
        /// What the network said.
        source: OciDistributionError,
    },
    /// The registry has no such image.
    #[error("{image} is not in the registry: check repository and tag, or push the image")]
    NotFound {
        /// The image, or one of its parts.
        image: String,
    },
    /// The registry does not let us in.
    #[error("the registry of {repository} does not allow to pull it ({found}): {remedy}")]
    Unauthorized {
        /// The repository, with its registry.
        repository: String,
        /// What it said.
        found: String,
        /// What can be done.
        remedy: String,
    },
    /// The file with credentials cannot be used.
    #[error("read the registry credentials in {path}: it must be a Docker config.json with `auths`")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The registry is there and cannot serve now.
    #[error("the registry of {repository} answered {status}: it is overloaded or broken; look at its log")]
    Unavailable {
        /// The repository, with its registry.
        repository: String,
        /// What it answered.
        status: u16,
    },
    /// The registry answered what the protocol does not have.
    #[error(
        "the registry of {repository} gave an answer that cannot be used ({answer}): is this the address of a registry?"
    )]
    Refused {
        /// The repository, with its registry.
        repository: String,
        /// The beginning of what it answered.
        answer: String,
    },
    /// A layer's download broke, again and again.
    #[error(
        "the download of layer {digest} from registry {registry} broke at byte {at} of {size} and could not be taken up: \
         check the network between, and the registry's log"
    )]
    Interrupted {
        /// The registry's name.
        registry: String,
        /// The layer.
        digest: String,
        /// Bytes that came.
        at: u64,
        /// Bytes that the manifest promises.
        size: u64,
        /// What the network said; absent when the answer just ended.
        source: Option<io::Error>,
    },
    /// The registry holds fewer or more bytes than the manifest says.
    #[error(
        "layer {digest} has {actual} bytes in registry {registry} and {size} in the manifest: it is damaged there; push \
         the image again"
    )]
    Truncated {
        /// The registry's name.
        registry: String,
        /// The layer.
        digest: String,
        /// Bytes that the registry has.
        actual: u64,
        /// Bytes that the manifest promises.
        size: u64,
    },
    /// Other bytes than the digest names.
    #[error(
        "{what} has the digest {actual} and not {expected}: it is damaged in the registry; push the image again"
    )]
    DigestMismatch {
        /// The thing.
        what: String,
        /// Its name.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A document that is not what it should be.
    #[error("{what} of {image} cannot be used ({detail}): build and push the image again")]
    InvalidManifest {
        /// The image.
        image: String,
        /// The document.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A layer of a kind that we do not take.
    #[error(
        "layer {digest} of {image} has the media type {media_type}, which is not supported: use tar layers, plain or \
         compressed with gzip or zstd, that lie in the registry itself"
    )]
    UnsupportedLayer {
        /// The image.
        image: String,
        /// The layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// An image for other machines.
    #[error(
        "{image} is made for {found} and this machine is {wanted}: build it for {wanted}, or do not select this node"
    )]
    WrongArchitecture {
        /// The image.
        image: String,
        /// What is there.
        found: String,
        /// What is needed.
        wanted: String,
    },
}

impl RegistryError {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) => "NoTrustRoots",
            Self::Reference { .. } | Self::DigestAlgorithm { .. } => "InvalidReference",
            Self::Unreachable { .. } | Self::Interrupted { .. } => "RegistryUnreachable",
            Self::NotFound { .. } => "ImageNotFound",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Credentials { .. } => "InvalidCredentials",
            Self::Unavailable { .. } => "RegistryUnavailable",
            Self::Refused { .. } => "RegistryRefused",
            Self::Truncated { .. } => "TruncatedLayer",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::InvalidManifest { .. } => "InvalidManifest",
            Self::UnsupportedLayer { .. } => "UnsupportedLayer",
            Self::WrongArchitecture { .. } => "WrongArchitecture",
        }
    }

    /// Whether the same may work later with the same image. Credentials are renewed while we run, so that a refusal
    /// may end without a new order.
    pub fn retryable(&self) -> bool {
        self.transient() || matches!(self, Self::Unauthorized { .. } | Self::Credentials { .. })
    }

    /// Whether the same may work within seconds.
    pub(crate) fn transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Unavailable { .. })
    }
}

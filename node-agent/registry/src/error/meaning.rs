//! What follows from an error: its reason in a condition, and whether it is worth trying again.

use std::time::Duration;

use super::RegistryError;

impl RegistryError {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) | Self::CaBundle { .. } => "InvalidCaBundle",
            Self::NoTrustRoots { .. } => "NoTrustRoots",
            Self::ClientCertificate { .. } | Self::HostCertificates { .. } => "InvalidClientCertificate",
            Self::Proxy { .. } => "InvalidProxy",
            Self::Mirror { .. } | Self::Hosts { .. } => "InvalidMirror",
            Self::Mirrors { source, .. } => source.reason(),
            Self::Reference { .. } | Self::DigestAlgorithm { .. } => "InvalidReference",
            Self::Unreachable { .. } | Self::Interrupted { .. } => "RegistryUnreachable",
            Self::NotFound { .. } => "ImageNotFound",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Credentials { .. } => "InvalidCredentials",
            Self::Unavailable { .. } => "RegistryUnavailable",
            Self::Document { .. } => "DocumentRefused",
            Self::Refused { .. } | Self::NoParts { .. } => "RegistryRefused",
            Self::Truncated { .. } => "TruncatedLayer",
            Self::DigestMismatch { .. } | Self::WrongMirror { .. } | Self::WrongParts { .. } => {
                "DigestMismatch"
            }
            Self::InvalidManifest { .. } | Self::TooLarge { .. } => "InvalidManifest",
            Self::UnsupportedLayer { .. } => "UnsupportedLayer",
            Self::WrongArchitecture { .. } => "WrongArchitecture",
        }
    }

    /// Whether the same may work later with the same image. Credentials and certificates are renewed while we run, so
    /// that a refusal may end without a new order.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::Credentials { .. }
            | Self::Client(_)
            | Self::CaBundle { .. }
            | Self::ClientCertificate { .. }
            | Self::HostCertificates { .. }
            | Self::NoTrustRoots { .. }
            | Self::WrongMirror { .. }
            | Self::WrongParts { .. }
            // What is only in a mirror may be had when that works again.
            | Self::Mirrors { .. } => true,
            _ => self.transient(),
        }
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Mirrors { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Whether only parts of a blob cannot be had.
    pub fn is_no_parts(&self) -> bool {
        match self {
            Self::NoParts { .. } => true,
            Self::Mirrors { source, .. } => source.is_no_parts(),
            _ => false,
        }
    }

    /// Whether the same may work within seconds.
    pub(crate) fn transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Unavailable { .. } => true,
            Self::Mirrors { source, .. } => source.transient(),
            _ => false,
        }
    }

    /// If the registry is there and cannot serve now: how long it wants to be left alone; zero if it does not say.
    pub(crate) fn busy(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(retry_after.unwrap_or_default()),
            Self::Mirrors { source, .. } => source.busy(),
            _ => None,
        }
    }
}

//! What can keep an image out of a slot.

use std::io;

use evenkeel_crds::node_plan::PlanError;
use evenkeel_node_agent_core::boot_files::BootFilesError;
use evenkeel_registry::RegistryError;
use evenkeel_trust::{PolicyError, Refusal};

use crate::{
    boot::BootError,
    disk::{DiskError, RegionError},
    pins::PinError,
    plan_error::plan_error,
    slot::{LayerError, WriteError},
};

/// Why an image was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The image could not be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Whoever must have signed the image has not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Who must have signed it is not said in a way that can be followed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The disk has no such slot, or cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The slot cannot be read.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The slot cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The slot cannot be read back.
    #[error("read slot {slot}: look at the kernel's log for errors of the disk")]
    Read {
        /// The slot.
        slot: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer is not what a layer should be.
    #[error("layer {digest} of {image} cannot be unpacked: build and push the image again")]
    Layer {
        /// The image.
        image: String,
        /// The layer.
        digest: String,
        /// What is wrong with it.
        source: LayerError,
    },
    /// The layer's bytes are right, and are not what the configuration says.
    #[error(
        "layer {digest} of {image} unpacks to {actual}, and the image's configuration says {expected}: build and push the \
         image again"
    )]
    DiffId {
        /// The image.
        image: String,
        /// The layer.
        digest: String,
        /// The diff ID that was promised.
        expected: String,
        /// The one that came.
        actual: String,
    },
    /// A layer cannot be put together from what slots hold and the parts that were fetched. It can be fetched whole.
    #[error("layer {digest} cannot be put together from its parts ({reason}): fetch it whole")]
    Parts {
        /// The layer.
        digest: String,
        /// Why.
        reason: String,
    },
    /// The image cannot be booted.
    #[error("{image} cannot be booted")]
    BootFiles {
        /// The image.
        image: String,
        /// What is missing.
        source: BootFilesError,
    },
    /// The boot partition.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The pins cannot be read.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The cluster's cloud-config is not the one that the order is named after.
    #[error(
        "the order's cloudConfig has the SHA-256 {actual} and is to have {expected}: is something else than the operator \
             writing node plans?"
    )]
    CloudConfig {
        /// What the order says.
        expected: String,
        /// That of the document.
        actual: String,
    },
    /// A person protects what is in the slot.
    #[error(
        "slot {0} is pinned, so that it is not written: free it with `evenkeel-agent unpin {0}`, or choose another slot"
    )]
    Pinned(String),
    /// It was asked to stop.
    #[error("staging was stopped before its end: the slot is empty; stage the image again")]
    Stopped,
}

impl StageError {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Registry(error) => error.reason(),
            Self::Refused(refusal) => refusal.reason(),
            Self::Policy(_) => "InvalidVerification",
            Self::Disk(_)
            | Self::Region(_)
            | Self::Read { .. }
            | Self::Write(WriteError::Disk { .. } | WriteError::ReadBack { .. } | WriteError::Held { .. }) => {
                "DiskFailed"
            }
            Self::Write(WriteError::TooLarge { .. }) => "ImageTooLarge",
            Self::Write(WriteError::Erofs(_) | WriteError::Record(_)) => "ImageNotSupported",
            Self::Write(WriteError::Source(_)) | Self::Layer { .. } | Self::Parts { .. } => "MalformedLayer",
            Self::DiffId { .. } => "DiffIdMismatch",
            Self::BootFiles { source: BootFilesError::NoKernel, .. } => "NoKernel",
            Self::BootFiles { source: BootFilesError::NoInitrd(_), .. } => "NoInitrd",
            Self::BootFiles { source: BootFilesError::KernelOptionsTooLong { .. }, .. } => {
                "KernelOptionsTooLong"
            }
            Self::Boot(error) => error.reason(),
            Self::Pins(_) => "EspUnavailable",
            Self::CloudConfig { .. } => "CloudConfigDamaged",
            Self::Pinned(_) => "SlotPinned",
            Self::Stopped => "Stopped",
        }
    }

    /// Whether the same may work later. What only a new image or a person can change does not.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Registry(error) => error.retryable(),
            Self::Boot(error) => error.retryable(),
            Self::Write(WriteError::Disk { .. })
            | Self::Region(_)
            | Self::Read { .. }
            | Self::Pins(_)
            | Self::Stopped => true,
            // The operator, which asks before any node does, waits for signatures that are still to come.
            Self::Refused(_)
            | Self::Policy(_)
            | Self::Write(_)
            | Self::Disk(_)
            | Self::Layer { .. }
            | Self::DiffId { .. }
            | Self::Parts { .. }
            | Self::CloudConfig { .. }
            | Self::Pinned(_)
            | Self::BootFiles { .. } => false,
        }
    }

    /// The error as the plan's status tells it.
    pub fn plan_error(self) -> PlanError {
        plan_error(self.reason(), self.retryable(), &self.into())
    }
}

//! The journal: the agent's own memory across restarts and reboots, one JSON document on the state partition.
//!
//! Written before the step that it announces. What it says is a plan, not a fact: after a restart [`crate::machine`]
//! compares it with what was seen.

use evenkeel_crds::{
    condition::Time,
    node_plan::{PlanError, RollbackCause, RolledBack, StagingCost},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of the document that this code writes and understands.
pub const JOURNAL_VERSION: u32 = 1;

/// Digests that are remembered as bad. More than a person will look at, and small on the wire.
pub const BAD_DIGESTS_MAX: usize = 32;

/// The agent's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Version of this document.
    pub version: u32,
    /// The attempt that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Images that failed on this machine.
    #[serde(default)]
    pub bad_digests: Vec<BadDigest>,
    /// Why the recovery slot does not hold what it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryTrouble>,
    /// The order of the cluster's to begin anew that is under way, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetAttempt>,
}

/// An order of the cluster's to begin anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetAttempt {
    /// The order's.
    pub id: String,
    /// Why nothing more is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<PlanError>,
    /// Before this time, in seconds since 1970, init is not asked again to reboot.
    pub ask_again_at: i64,
}

/// What went wrong with the recovery slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryTrouble {
    /// The image that it was to hold.
    pub image: String,
    /// Why it does not.
    pub error: PlanError,
    /// How often that failed in a row.
    pub failures: u32,
    /// Before this time, in seconds since 1970, it is not tried again.
    pub retry_at: i64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { version: JOURNAL_VERSION, attempt: None, bad_digests: Vec::new(), recovery: None, reset: None }
    }
}

/// One attempt to run one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The order's `planId`.
    pub plan_id: String,
    /// The image, `repository@sha256:…`.
    pub image: String,
    /// Digest part of the image.
    pub digest: String,
    /// The slot that gets it.
    pub slot: String,
    /// For a cloud-config alone, which the system that runs gets: when it began, in seconds since 1970, so that what the host
    /// said of an earlier attempt of the same plan is not taken for this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<i64>,
    /// Where the attempt stands.
    pub step: Step,
    /// What staging took, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<StagingCost>,
    /// The last error; cleared by the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<PlanError>,
    /// How often the current step failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// Before this time, in seconds since 1970, a failed step is not tried again.
    #[serde(default)]
    pub retry_at: i64,
    /// How often the trial was armed again because the loader had not tried it.
    #[serde(default)]
    pub rearms: u32,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Step {
    /// The slot is being written.
    Staging,
    /// The slot is written and verified, not bootable.
    Staged,
    /// The trial's entry is being written, or taken away again.
    Activating {
        /// Boot ID of the boot that does so.
        boot_id_before: String,
    },
    /// The host's init was asked to reboot.
    Rebooting {
        /// Boot ID of the boot that asked.
        boot_id_before: String,
    },
    /// The new slot runs, not yet kept.
    Trial,
    /// The new slot is the default.
    Committed,
    /// On the way back to the old slot.
    Reverting {
        /// Why.
        cause: RollbackCause,
        /// Why, for people.
        message: String,
        /// Digest of the kept image that a kept slot gives way to: its boot entry is away for a moment while it becomes the
        /// default again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// The old slot runs again.
    RolledBack {
        /// Why and when.
        rolled_back: RolledBack,
    },
    /// An error that the agent does not try to get over by itself.
    Failed,
}

impl Step {
    /// The old slot runs again, since `at`.
    pub fn rolled_back(cause: RollbackCause, message: impl Into<String>, at: Timestamp) -> Self {
        Self::RolledBack { rolled_back: RolledBack { cause, message: message.into(), at: Time(at) } }
    }
}

/// An image that failed on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BadDigest {
    /// `sha256:…`.
    pub digest: String,
    /// How it failed the last time.
    pub cause: RollbackCause,
    /// How often it failed.
    pub count: u32,
}

/// What the guard wrote after the initrd let the machine begin anew, as the cluster ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetDone {
    /// The order's.
    pub id: String,
}

/// What the guard wrote before it sent the machine back: one JSON document beside the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Digest of the image that was on trial.
    pub digest: String,
    /// Why it was given up.
    pub cause: RollbackCause,
    /// Why, for people.
    pub message: String,
}

/// What the guard wrote when the host's own health checks had passed: one JSON document beside the journal. Without it
/// no trial is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChecksPassed {
    /// The boot in which they passed.
    pub boot_id: String,
}

/// What the guard needs to know of a trial: one JSON document beside the journal, written before the trial's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialOrder {
    /// The order's `planId`.
    pub plan_id: String,
    /// Digest of the image on trial.
    pub digest: String,
    /// The slot on trial.
    pub slot: String,
    /// Seconds since the trial's boot until it is given up.
    pub deadline_seconds: u64,
    /// Boot ID of the boot before.
    pub boot_id_before: String,
    /// `host:port` of the API server, as the agent reached it before the trial: where the guard knocks before it blames
    /// the image for a commit that did not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<String>,
}

impl Journal {
    /// Remembers that an image failed here; the oldest memory gives way when there are too many.
    pub fn remember_bad(&mut self, digest: &str, cause: RollbackCause) {
        if let Some(known) = self.bad_digests.iter_mut().find(|bad| bad.digest == digest) {
            known.cause = cause;
            known.count = known.count.saturating_add(1);
            return;
        }
        if self.bad_digests.len() >= BAD_DIGESTS_MAX {
            self.bad_digests.remove(0);
        }
        self.bad_digests.push(BadDigest { digest: digest.to_owned(), cause, count: 1 });
    }

    /// Whether an image failed here before.
    pub fn is_bad(&self, digest: &str) -> bool {
        self.bad_digests.iter().any(|bad| bad.digest == digest)
    }
}

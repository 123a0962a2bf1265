//! The agent's half of a plan: what it sees, does, and came to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reset::ResetStatus;
use crate::condition::{Condition, Time};

/// The agent's account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlanStatus {
    /// `metadata.generation` that this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The order that `phase` speaks of; absent while there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// Where the order stands.
    #[serde(default)]
    pub phase: Phase,
    /// How far staging is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What staging took, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<StagingCost>,
    /// Every slot of the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub slots: Vec<SlotStatus>,
    /// What runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<Booted>,
    /// Whether what is staged, on trial or kept is a cloud-config that needs no reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// What went wrong, with phase `Failed` or while a step is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<PlanError>,
    /// Why the old slot runs again, with phase `RolledBack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// What the recovery slot holds; absent while it holds nothing and nothing went wrong there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,
    /// What became of the last order to begin anew, as far as the machine remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<ResetStatus>,
    /// What failed on this node, as `booted.digest` would say it; it is not tried again here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub bad_digests: Vec<String>,
    /// What the agent is and runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFacts>,
    /// `Ready`, and `Reconciling` or `Stalled` while that is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where an order stands. The design's table says what is true on disk in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// Pulling and writing; the node serves as before.
    Staging,
    /// Written, flushed, read back, verified; still not bootable.
    Staged,
    /// Boot entry for a trial written.
    Activating,
    /// Reboot asked of the host's init.
    Rebooting,
    /// Running the new slot, not yet kept.
    Trial,
    /// The new slot is the default.
    Committed,
    /// The old slot runs again.
    RolledBack,
    /// An error; the old slot runs.
    Failed,
}

/// How far staging is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Compressed bytes of layers that were taken in.
    pub bytes_done: i64,
    /// Compressed bytes of all layers.
    pub bytes_total: i64,
    /// Rate of the last ten seconds.
    pub bytes_per_second: i64,
    /// Seconds that the rest takes at this rate; absent while nothing comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
}

/// The recovery slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The image's reference as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The image's digest, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it does not hold what was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<RecoveryFailure>,
}

/// Why the recovery slot does not hold an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryFailure {
    /// The image.
    pub image: String,
    /// What went wrong.
    pub error: PlanError,
}

/// What staging took, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StagingCost {
    /// Bytes that came over the network.
    pub bytes_downloaded: i64,
    /// Bytes that were copied from another slot of the disk.
    #[serde(default)]
    pub bytes_copied: i64,
    /// Bytes that the disk was given.
    pub bytes_written: i64,
    /// Bytes that the slot held already at their place, and that were not written again.
    #[serde(default)]
    pub bytes_skipped: i64,
    /// Milliseconds from the first request to the verified slot.
    pub milliseconds: i64,
    /// Files below `/etc`, `/opt`, `/root` and `/srv` that the machine has changed and the image changes too, the first 16 of
    /// them. The machine's stay, so that what the image says there is not seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conflicts: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub conflict_count: i64,
}

/// Conflicts that are named.
pub const CONFLICTS_MAX: usize = 16;
/// Characters of a path that are named.
const CONFLICT_CHARACTERS_MAX: usize = 256;

impl StagingCost {
    /// Notes which paths are in conflict.
    #[must_use]
    pub fn with_conflicts(mut self, paths: &[String]) -> Self {
        self.conflict_count = i64::try_from(paths.len()).unwrap_or(i64::MAX);
        let short = |path: &String| path.chars().take(CONFLICT_CHARACTERS_MAX).collect();
        self.conflicts = paths.iter().take(CONFLICTS_MAX).map(short).collect();
        self
    }
}

/// One slot of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// `a`, `b`, …
    #[schemars(length(max = 16))]
    pub name: String,
    /// What is in it.
    pub state: SlotState,
    /// The image's reference as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The image's digest, `sha256:…`; with a cloud-config from the cluster `+` and the beginning of that one's SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the boot loader would boot it by itself.
    #[serde(default)]
    pub bootable: bool,
    /// When it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Time>,
    /// When all of it was last read and found to be what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// Whether a person protected it from reuse.
    #[serde(default)]
    pub pinned: bool,
}

/// What is in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SlotState {
    /// Nothing that could be booted.
    #[default]
    Empty,
    /// A whole image whose record holds.
    Complete,
    /// An image that was whole, and is not any more: `evenkeel-agent verify` found it.
    Damaged,
}

/// What runs now, from the kernel command line and the slot's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booted {
    /// The slot's name.
    #[schemars(length(max = 16))]
    pub slot: String,
    /// Digest of the image in it, `sha256:…`; with a cloud-config from the cluster `+` and the beginning of that one's SHA-256.
    pub digest: String,
    /// The image's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The kernel's boot ID.
    pub boot_id: String,
    /// Whether the host's own health checks passed in this boot. They run on trial only.
    #[serde(default)]
    pub host_checks_passed: bool,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanError {
    /// One CamelCase word for programs, such as `ImageTooLarge`.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// What failed, on which thing, and what can be done.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// Whether the agent tries again by itself.
    pub retryable: bool,
}

/// Why the old slot runs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolledBack {
    /// The cause.
    pub cause: RollbackCause,
    /// One sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was noticed.
    pub at: Time,
}

/// Why a node is on its old slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackCause {
    /// The boot loader used up its tries: the new image panicked, hung or reset before it came up.
    Bootloader,
    /// A health check of the new image failed on the host.
    HostCheck,
    /// The node or a health gate was not healthy in time, as the cluster saw it.
    ClusterGate,
    /// No commit came before the deadline.
    Deadline,
    /// No commit could come before the deadline, because the machine could not reach the cluster. The digest is not
    /// held to be bad.
    ClusterUnreachable,
    /// A person asked for it.
    User,
    /// The image failed on other nodes, and its rollout is taken back.
    Rollout,
}

/// What the agent is and runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Version of the agent.
    pub agent_version: String,
    /// Architecture in OCI's terms, such as `amd64`.
    pub architecture: String,
    /// Whether the disk has Evenkeel's layout, so that the node can be upgraded at all.
    pub manageable: bool,
}

//! What a `ManagedOSImage`'s status remembers of rollouts. All of it is bounded: nothing here grows with the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Time;

/// How far the rollout of one image is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Digest of the image, `sha256:…`; with a cloud-config `+` and the beginning of that one's SHA-256.
    pub digest: String,
    /// The image's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the rollout began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of its nodes was done; absent while some are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How many of `rollout.steps` are behind it.
    pub steps_passed: i32,
    /// When the nodes of the step after those were done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_done_at: Option<Time>,
    /// Who approved which step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub approvals: Vec<Approval>,
}

/// Somebody's word that a rollout goes on after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The step, from 1.
    pub step: i32,
    /// Who, as the annotation says.
    #[schemars(length(max = 128))]
    pub by: String,
    /// When it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// An image that nodes came back from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Denied {
    /// Its digest, `sha256:…`; with a cloud-config `+` and the beginning of that one's SHA-256.
    pub digest: String,
    /// What happened on the node that is named first.
    #[schemars(length(max = 512))]
    pub cause: String,
    /// On how many nodes.
    pub count: i64,
    /// Since when no node gets it.
    pub since: Time,
    /// Until when; absent: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRollout {
    /// Digest of the image, `sha256:…`; with a cloud-config `+` and the beginning of that one's SHA-256.
    pub digest: String,
    /// The image's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended: the last node was done, or another image was asked for.
    pub ended_at: Time,
    /// How it ended.
    pub result: RolloutResult,
    /// Nodes that ran the image then.
    pub updated: i64,
    /// Nodes on which it had failed.
    pub failed: i64,
    /// Nodes that were selected.
    pub total: i64,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutResult {
    /// Every node ran the image.
    Finished,
    /// Nothing was left to do, and not every node ran the image: it failed on some, or they could not have it.
    Incomplete,
    /// Another image was asked for before.
    Superseded,
    /// Another image was asked for after this one had stopped because of failures.
    Failed,
}

/// Somebody's wish that windows are ignored for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunNow {
    /// Who, as the annotation says.
    #[schemars(length(max = 128))]
    pub by: String,
    /// Until when.
    pub until: Time,
}

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    /// How many nodes would be updated.
    pub nodes: i64,
    /// In how many waves.
    pub waves: i64,
    /// The first waves: names of nodes in their order, at most 5 waves of 10.
    #[schemars(length(max = 5), inner(length(max = 10)))]
    pub order: Vec<Vec<String>>,
    /// What would hold it, and what it would leave out, at most 16.
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub blockers: Vec<String>,
    /// Seconds that nodes would be out of service in turn, from what earlier ones took; absent while none was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// When it would end if it began now, closed windows included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Time>,
}

//! `NodePlan`: the protocol between operator and agent. Named after its node; the operator owns the spec, the agent
//! of that node owns the status.

mod reset;
mod rules;
mod status;

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reset::{ResetOrder, ResetStatus, Wipe};
pub use status::{
    Booted, HostFacts, NodePlanStatus, Phase, PlanError, Progress, RecoveryFailure, RecoveryStatus,
    RollbackCause, RolledBack, SlotState, SlotStatus, StagingCost,
};

use crate::{
    cloud_config::{OrderedCloudConfig, digest_of, release},
    condition::Time,
    managed_os_image::Pull,
    verification::Verification,
};

/// One node's plan. Without `planId`, `image` and `target` it orders nothing, and the agent only reports.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "NodePlan",
    plural = "nodeplans",
    shortname = "nplan",
    category = "evenkeel",
    status = "NodePlanStatus",
    doc = "One node's plan. spec: the operator's order; status: the agent's account.",
    crates(
        kube_core = "kube_core",
        k8s_openapi = "k8s_openapi",
        schemars = "schemars",
        serde = "serde",
        serde_json = "serde_json"
    ),
    derive = "PartialEq",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Slot", type_ = "string", json_path = ".status.booted.slot"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.progress.bytesDone", priority = 1),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.progress.bytesTotal", priority = 1),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.rolledBack.cause"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.error.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::order())]
pub struct NodePlanSpec {
    /// Identity of one attempt. A new attempt has a new one, even for the same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub plan_id: Option<String>,
    /// The image, always by digest: `repository@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::pinned_image())]
    pub image: Option<String>,
    /// The cluster's cloud-config, which is kept in the slot with the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_config: Option<OrderedCloudConfig>,
    /// Whether another cloud-config alone is applied to the system that runs, without a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// What the recovery slot shall hold. It is written while nothing else is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryOrder>,
    /// That the machine begins anew with the image that it runs, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetOrder>,
    /// How far the agent may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// After this an approval to reboot is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Seconds from the trial's boot until the node returns to its old slot by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 86_400))]
    pub commit_deadline_seconds: Option<i64>,
    /// How the image is pulled.
    #[serde(default)]
    pub pull: Pull,
    /// Who must have signed the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Why the order is to go back; with `target: Reverted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
    /// The operator's own record of the disruption, written before its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// When the order was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<Time>,
    /// How the node's last turn ended; written as its record is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_turn: Option<LastTurn>,
}

/// What the recovery slot shall hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct RecoveryOrder {
    /// The image, always by digest: `repository@sha256:…`.
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::pinned_image())]
    pub image: String,
    /// When that was ordered.
    pub ordered_at: Time,
}

impl NodePlanSpec {
    /// The image that the recovery slot shall hold now: nothing is begun there while the node is in its turn or goes back.
    pub fn recovery_image(&self) -> Option<&str> {
        let free = self.disruption.is_none() && self.target != Some(Target::Reverted);
        self.recovery.as_ref().filter(|_| free).map(|order| order.image.as_str())
    }
}

/// How far the agent may go. Moves forward only, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Target {
    /// Write the passive slot and verify it. The node serves as before.
    Staged,
    /// Boot it on trial.
    Booted,
    /// Keep it.
    Committed,
    /// Go back to the slot that ran before.
    Reverted,
}

/// Why the operator orders a node back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revert {
    /// The cause, as `status.rolledBack.cause` will show it.
    pub cause: RollbackCause,
    /// One sentence for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What a killed operator needs to go on exactly: the slot of the budget that this node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// When the node's turn began.
    pub since: Time,
    /// Whether the node was found cordoned. Then the cordon is somebody else's, and stays.
    pub found_cordoned: bool,
    /// The node's boot ID before the reboot; a success shows another.
    pub boot_id_before: String,
    /// When the drain began, if hooks came before it: its time is counted from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Time>,
    /// When the drain was done, if something is waited for between it and the reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<Time>,
    /// When the node must be Ready on the new image; set with the approval to reboot. An order to go back puts it off to
    /// when it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Since when the node is healthy on the new image without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Time>,
    /// Which attempt with this image on this node, from 1.
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// Whether the turn is to leave an image that was kept, because the rollout is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going_back: bool,
    /// Whether the turn is for a cloud-config that is applied without a reboot: the node stays in service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// What is lost, if the turn is for the machine to begin anew and not for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Wipe>,
}

/// A turn that is over: how long later ones may take, and how many went wrong in a row, is known from these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastTurn {
    /// The order that it was for.
    pub plan_id: String,
    /// When it began.
    pub since: Time,
    /// When it ended.
    pub until: Time,
    /// How it ended.
    pub outcome: TurnOutcome,
    /// Seconds that the node's last turn with a reboot took, if it went well: this one, or one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub reboot_took_seconds: Option<i64>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TurnOutcome {
    /// The node runs the image, committed.
    Updated,
    /// It does not.
    Failed,
    /// It was given back before its reboot, because somebody wanted something else.
    Dropped,
}

/// An order: what `planId`, `image` and `target` say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Identity of the attempt.
    pub plan_id: String,
    /// `repository@sha256:…`.
    pub image: String,
    /// SHA-256 of the cloud-config that comes with it.
    pub cloud_config: Option<String>,
    /// How far to go.
    pub target: Target,
}

impl NodePlanSpec {
    /// The order, if there is one.
    pub fn order(&self) -> Option<Order> {
        Some(Order {
            plan_id: self.plan_id.clone()?,
            image: self.image.clone()?,
            cloud_config: self.cloud_config.as_ref().map(|config| config.sha256.clone()),
            target: self.target?,
        })
    }
}

impl Order {
    /// What the node is to run: the image's digest, and with a cloud-config a part of that one's.
    pub fn release(&self) -> String {
        release(digest_of(&self.image).unwrap_or_default(), self.cloud_config.as_deref())
    }
}

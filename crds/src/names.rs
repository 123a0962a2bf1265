//! Names that more than one part has to agree on.

/// API group of every kind.
pub const GROUP: &str = "evenkeel.dev";
/// Field manager of what the operator writes.
pub const OPERATOR_FIELD_MANAGER: &str = "evenkeel-operator";
/// Field manager of the agent's status.
pub const AGENT_FIELD_MANAGER: &str = "evenkeel-agent";
/// Finalizer on a `ManagedOSImage`, and on the `NodePlan` of a node in its turn: what was begun is finished, and cordons that
/// the operator set are lifted, before the object goes.
pub const FINALIZER: &str = "evenkeel.dev/restore-nodes";
/// Annotation on a Node that the operator cordoned; the value is the owning `ManagedOSImage`'s name.
pub const CORDONED_BY: &str = "evenkeel.dev/cordoned-by";
/// Label on a `ManagedOSVersion` that a channel keeps; the value is the `ManagedOSVersionChannel`'s name.
pub const CHANNEL: &str = "evenkeel.dev/channel";
/// Label on a `ManagedOSVersion` that its channel does not list any more; the value is `true`.
pub const NO_LONGER_IN_SYNC: &str = "evenkeel.dev/no-longer-in-sync";
/// Annotation on a `ManagedOSImage` that follows a channel: the name of the `ManagedOSVersion` that it may go on to.
pub const APPROVED_VERSION: &str = "evenkeel.dev/approved-version";
/// Annotation beside it that says who approved.
pub const APPROVED_BY: &str = "evenkeel.dev/approved-by";
/// Taint on a Node that waits for an image, where `drain.preferNoSchedule` asks for it.
pub const OUTDATED: &str = "evenkeel.dev/outdated";
/// Annotation on a Node that the operator tainted with its cordon; the value is the taint's key.
pub const TRIAL_TAINT: &str = "evenkeel.dev/trial-taint";
/// Reason of a lifecycle condition on a Node that is the operator's.
pub const LIFECYCLE_REASON: &str = "EvenkeelUpdate";
/// Label on a Job that the operator runs for a node: which hook or gate it is of.
pub const JOB_OF: &str = "evenkeel.dev/job-of";
/// Label on such a Job: the turn that it belongs to, as a hash of the node's record.
pub const JOB_TURN: &str = "evenkeel.dev/turn";
/// Annotation on such a Job: the node.
pub const JOB_NODE: &str = "evenkeel.dev/node";
/// Annotation on a Node: a whole number, default 0; nodes with a higher one take their turn earlier.
pub const ROLLOUT_WEIGHT: &str = "evenkeel.dev/rollout-weight";
/// Annotation on a Node: its machine begins anew with the image that it runs, once. `state`, `oem`, or `state,oem`: what is lost.
/// The operator removes it when that is over.
pub const RESET: &str = "evenkeel.dev/reset";
/// Annotation on a `ManagedOSImage`: windows and exclusions are ignored until then, as `2026-05-01T04:00:00Z NAME` says;
/// NAME is who wants it, and is kept.
pub const RUN_NOW: &str = "evenkeel.dev/run-now";
/// Annotation on a `ManagedOSImage`: the rollout goes on after a step. `STEP NAME`: the step as the status line gives it,
/// and who approves.
pub const APPROVE: &str = "evenkeel.dev/approve";
/// Annotation on a `ManagedOSImage`: what failed before and may be tried all the same, as
/// `status.denied` names it.
pub const ALLOW_DIGEST: &str = "evenkeel.dev/allow-digest";

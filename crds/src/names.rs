//! Names that more than one part has to agree on.

/// API group of every kind.
pub const GROUP: &str = "evenkeel.dev";
/// Field manager of the operator's server-side applies and patches.
pub const OPERATOR_FIELD_MANAGER: &str = "evenkeel-operator";
/// Field manager of the agent's status patches.
pub const AGENT_FIELD_MANAGER: &str = "evenkeel-agent";
/// Finalizer on a `ManagedOSImage`: cordons that the operator set are lifted before the object goes.
pub const FINALIZER: &str = "evenkeel.dev/restore-nodes";
/// Annotation on a Node that the operator cordoned; the value is the owning `ManagedOSImage`'s name.
pub const CORDONED_BY: &str = "evenkeel.dev/cordoned-by";

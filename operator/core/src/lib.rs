//! The rollout planner: pure decisions over a snapshot of the fleet.
//!
//! [`plan()`] turns (policy, snapshot, now) into actions and a report. It never touches a client, a clock or a disk.
//! [`check`] looks at the same decision with other eyes.

pub mod channel;
pub mod check;
pub mod drain;
pub mod gates;
pub mod hooks;
pub mod lifecycle;
pub mod plan;
pub mod policy;
pub mod report;
pub mod schedule;
pub mod snapshot;
pub mod wishes;

pub use drain::DrainSeen;
pub use plan::{Action, Decision, plan};
pub use policy::{Policy, PolicyError};
pub use report::{NodeState, Report};
pub use snapshot::{Checks, NodeSeen, PlanSeen, Shared, Snapshot};

//! The cluster-side controller: gathers what the planner needs, and does what it decides.
//!
//! Decisions are `operator/core`'s. Here is what touches the cluster and the registry: [`reconcile`] and its five steps,
//! the lease that lets one replica act, and what people see of it (status, events, metrics).

pub mod api;
pub mod args;
pub mod channel;
pub mod claim;
pub mod context;
pub mod drain;
pub mod events;
pub mod gates;
pub mod guarded;
pub mod jobs;
pub mod lease;
pub mod lifecycle;
pub mod marks;
pub mod metrics;
pub mod reconcile;
pub mod resolve;
pub mod run;
pub mod seen;
pub mod serve;
pub mod status;
pub mod watch;

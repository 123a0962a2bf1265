//! Follows this node's plan: facts, decision, journal, action, report, and again.

pub mod args;
pub mod host;
pub mod plan_watch;

pub use args::RunArgs;

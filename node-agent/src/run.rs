//! Follows this node's plan: facts, decision, journal, action, report, and again.

pub mod args;
pub mod host;
pub mod plan_watch;

pub use args::RunArgs;

/// Follows the plan until the process is told to end.
#[allow(clippy::unused_async)]
pub async fn run(_args: &RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}

//! What a rollout takes does not depend on the clock alone: how much is written for each node, and what is left.

use std::time::Duration;

use anyhow::{Result, ensure};
use evenkeel_tests::{
    binaries::Binaries,
    scale::{self, Figures, Options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_nodes_cost_no_more_writes_than_they_may_and_leave_nothing_behind() -> Result<()> {
    let operator = Binaries::built().await?.operator.clone();
    let run = scale::run(Options { nodes: 100, budget: 10, operator, idle: Duration::from_secs(1) }).await?;
    let figures = Figures::of(&run);
    let missed = figures.missed_untimed();
    ensure!(missed.is_empty(), "{missed:#?}\n{figures}");
    Ok(())
}

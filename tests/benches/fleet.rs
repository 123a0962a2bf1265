//! A rollout over very many nodes, with the figures that are promised beside those that were measured. It wants a machine
//! without other work. Exit codes: 0 all figures keep their limits; 1 one does not, or the run failed; 2 wrong usage.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use evenkeel_e2e::binaries::{self, Binary};
use evenkeel_tests::scale::{self, Figures, Options};

#[derive(Debug, Parser)]
struct Arguments {
    /// How many nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// How many of them may be out of service at once; as many may stage.
    #[arg(long, default_value_t = 100)]
    budget: usize,
    /// Seconds for which the operator is looked at after the rollout.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { nodes, budget, idle, .. } = Arguments::parse();
    let operator = binaries::build().await?.path(Binary::Operator);
    let options = Options { nodes, budget, operator, idle: Duration::from_secs(idle) };
    let figures = Figures::of(&scale::run(options).await?);
    println!(
        "{nodes} nodes, budget {budget}, maxStaging {budget}, soakSeconds 0, delaySeconds 0, drained by the usual rules; \
         agents stage, reboot and pass their checks at once\n\n{figures}"
    );
    let missed = figures.missed();
    println!("\n{} figures missed their limit", missed.len());
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

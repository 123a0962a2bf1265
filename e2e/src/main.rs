//! The demo's command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use evenkeel_e2e::demo;

/// Upgrades a fleet of virtual machines, for real.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A cluster, two machines, a good upgrade, a bad one, and a report. With KEEP=1 everything keeps running.
    Demo(demo::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    let Command::Demo(arguments) = Cli::parse().command;
    demo::run(&arguments).await
}

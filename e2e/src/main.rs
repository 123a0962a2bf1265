//! The demo's command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use evenkeel_e2e::{damage, demo};

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
    /// One machine without a cluster, and slots in which single bytes are wrong: it must come back by itself.
    Damage,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Demo(arguments) => demo::run(&arguments).await,
        Command::Damage => damage::run().await,
    }
}

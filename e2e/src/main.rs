//! The demo's command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use evenkeel_e2e::{
    delta, demo,
    tools::{self, Tool},
    trial,
};

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
    /// Machines without a cluster, and slots that are good, bad or damaged: each must come to the right end by itself.
    Trial(trial::Arguments),
    /// A machine that updates itself, and whose power is cut again and again.
    Power(trial::power::Arguments),
    /// The life of a machine from an empty disk on: install, update, reset, loss and recovery.
    Life(trial::life::Arguments),
    /// Builds containerd and ctr, which staging is measured beside, and prints their folder.
    Containerd,
    /// Two versions of a Debian that differ by an update of one package: how much of the second is downloaded.
    Delta,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(arguments) => Box::pin(demo::run(&arguments)).await,
        Command::Trial(arguments) => trial::run(&arguments).await,
        Command::Power(arguments) => trial::power::run(&arguments).await,
        Command::Life(arguments) => trial::life::run(&arguments).await,
        Command::Containerd => containerd().await,
        Command::Delta => delta::run().await,
    };
    // Without a backtrace, which names nothing in these binaries and would push the words out of a log's end.
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("Error: {error:#}");
    ExitCode::FAILURE
}

async fn containerd() -> Result<()> {
    let programs = tools::ensure(&[Tool::Containerd, Tool::Ctr]).await?;
    let folder = programs.path(Tool::Ctr).parent().map(std::path::Path::to_owned).unwrap_or_default();
    println!("{}", folder.display());
    Ok(())
}

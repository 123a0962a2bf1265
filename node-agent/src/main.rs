//! The command line's entry.

use std::process::ExitCode;

use clap::Parser as _;
use evenkeel_node_agent::{args::Cli, commands};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match commands::execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel-agent: {error:#}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

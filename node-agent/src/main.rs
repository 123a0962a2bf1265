//! The command line's entry.

use std::process::ExitCode;

use clap::Parser as _;
use evenkeel_node_agent::{args::Cli, commands, printable::printable};
use tracing_subscriber::EnvFilter;

/// Characters of an error that are told: more than any of ours has.
const MESSAGE_MAX: usize = 4096;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match commands::execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel-agent: {}", printable(&format!("{error:#}"), MESSAGE_MAX));
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

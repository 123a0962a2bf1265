//! The command line's entry.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use evenkeel_node_agent::{args::Cli, causes::with_causes, commands, printable::printable, tell::tell_line};
use tracing_subscriber::EnvFilter;

/// Characters of an error that are told: more than any of ours has.
const MESSAGE_MAX: usize = 4096;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // It would tell of a log that nobody takes in a way that ends the program.
    log.log_internal_errors(false).init();
    match commands::execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell_line(format_args!("evenkeel-agent: {}", printable(&with_causes(&error), MESSAGE_MAX)));
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

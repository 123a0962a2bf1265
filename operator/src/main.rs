//! The command line's entry.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use evenkeel_operator::{args::Args, run};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // A log whose reader is gone would end the process: the line that says so cannot be written either.
    let logs = logs.log_internal_errors(false);
    if args.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    match run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

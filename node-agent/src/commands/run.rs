//! `run`: the DaemonSet's command.

use anyhow::Result;

use crate::run::{self, RunArgs};

pub(super) fn run(args: &RunArgs) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(run::run(args));
    // A thread that waits for a disk must not hold up the end: every step can be done again.
    runtime.shutdown_background();
    ended
}

//! Programs that run to their end.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::last_lines;

/// Runs a program without input and gives what it prints; a failure says the last that it wrote to stderr. The program
/// ends when the future is dropped.
pub async fn output(mut command: Command) -> Result<Vec<u8>> {
    let program = Path::new(command.as_std().get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, last_lines(&output.stderr).trim());
    }
    Ok(output.stdout)
}

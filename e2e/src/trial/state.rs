//! What the host left on the state partition of a disk file, and what it finds there.
//!
//! The kernel mounts the partition, and so replays its journal as the machine's next boot would; in a mount namespace of
//! its own, so that no mount stays behind.

use std::path::Path;

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::{
    journal::{TrialOrder, Verdict},
    layout::Role,
};
use tokio::process::Command;

use super::base;
use crate::process::output;

const MOUNT: &str = r#"mount -t ext4 -o "loop,offset=$2,sizelimit=$3" "$1" /mnt; cd /mnt/var/lib; "#;
const READ_VERDICT: &str = "if [ -e evenkeel/verdict.json ]; then cat evenkeel/verdict.json; fi";
const WRITE: &str = r#"mkdir -p "$(dirname "$4")"; printf '%s' "$5" > "$4"; sync -f ."#;
/// What a trial image runs at the end of each boot, if it is there.
const SCRIPT: &str = "evenkeel-trial/run";

pub(super) async fn verdict(disk: &Path) -> Result<Option<Verdict>> {
    let text = in_state(disk, READ_VERDICT, &[]).await?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).context("understand the guard's verdict")
}

pub(super) async fn write_order(disk: &Path, order: &TrialOrder) -> Result<()> {
    let text = serde_json::to_string(order).context("write a trial's order")?;
    in_state(disk, WRITE, &["evenkeel/trial.json", &text]).await.map(|_| ())
}

pub(super) async fn write_script(disk: &Path, script: &str) -> Result<()> {
    in_state(disk, WRITE, &[SCRIPT, script]).await.map(|_| ())
}

async fn in_state(disk: &Path, script: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let place = base::place(Role::State)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-euc", &format!("{MOUNT}{script}"), "sh"]).arg(disk);
    command.args([place.offset.to_string(), place.length.to_string()]).args(arguments);
    output(command).await.context("look into the state partition")
}

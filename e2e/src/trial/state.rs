//! What the host left on the state and oem partitions of a disk file, and what it finds there.
//!
//! The kernel mounts a partition, and so replays its journal as the machine's next boot would; in a mount namespace of
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

const MOUNT: &str = r#"mount -t ext4 -o "loop,offset=$2,sizelimit=$3" "$1" /mnt; cd "/mnt/$4"; shift 4; "#;
const READ_VERDICT: &str = "if [ -e evenkeel/verdict.json ]; then cat evenkeel/verdict.json; fi";
const WRITE: &str = r#"mkdir -p "$(dirname "$1")"; printf '%s' "$2" > "$1"; sync -f ."#;
/// What a trial image runs at the end of each boot, if it is there.
const SCRIPT: &str = "evenkeel-trial/run";
const CLOUD_CONFIG: &str = "trial.yaml";

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

/// Puts a document among the machine's own cloud-config.
pub(super) async fn write_cloud_config(disk: &Path, document: &str) -> Result<()> {
    in_partition(disk, Role::Oem, ".", WRITE, &[CLOUD_CONFIG, document]).await.map(|_| ())
}

async fn in_state(disk: &Path, script: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    in_partition(disk, Role::State, "var/lib", script, arguments).await
}

async fn in_partition(
    disk: &Path,
    role: Role,
    folder: &str,
    script: &str,
    arguments: &[&str],
) -> Result<Vec<u8>> {
    let place = base::place(role)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-euc", &format!("{MOUNT}{script}"), "sh"]).arg(disk);
    command.args([&place.offset.to_string(), &place.length.to_string(), folder]).args(arguments);
    output(command).await.with_context(|| format!("look into the partition {role:?}"))
}

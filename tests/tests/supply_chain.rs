//! What may come into the tree is what `deny.toml` says: licences, banned crates, sources.

use anyhow::{Context as _, Result, ensure};
use evenkeel_e2e::{cache, progress};
use evenkeel_tests::root;
use tokio::process::Command;

const VERSION: &str = "0.20.2";

/// cargo-deny, built once and kept in the cache.
async fn cargo_deny() -> Result<std::path::PathBuf> {
    let folder = cache::entry("cargo-deny", VERSION, |folder| async move {
        let mut command = Command::new(cargo());
        command
            .args(["install", "cargo-deny", "--locked", "--quiet", "--version", VERSION, "--root"])
            .arg(&folder);
        // Built for the host and not for what the checkout's own build is made for.
        command.current_dir("/").env("CARGO_TARGET_DIR", folder.join("target")).kill_on_drop(true);
        let output = progress::long(&format!("build cargo-deny {VERSION}"), command.output()).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(folder.join("target")).context("remove what the build left")
    });
    Ok(folder.await?.join("bin/cargo-deny"))
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[tokio::test]
async fn the_tree_holds_what_the_rules_allow() -> Result<()> {
    let program = cargo_deny().await?;
    let mut command = Command::new(program);
    command.args(["--locked", "check", "bans", "licenses", "sources"]).current_dir(root()).kill_on_drop(true);
    let output = command.output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{err}");
    Ok(())
}

#[tokio::test]
async fn a_banned_crate_would_be_noticed() -> Result<()> {
    let program = cargo_deny().await?;
    let config = std::fs::read_to_string(root().join("deny.toml"))?;
    let banned = config.replacen("{ name = \"ring\" }", "{ name = \"serde\" }", 1);
    ensure!(banned != config, "deny.toml bans ring in a form that this test does not know");
    let folder = evenkeel_e2e::process::Scratch::new("deny")?;
    let path = folder.path().join("deny.toml");
    std::fs::write(&path, banned)?;
    let mut command = Command::new(program);
    command
        .args(["--locked", "--config"])
        .arg(&path)
        .args(["check", "bans"])
        .current_dir(root())
        .kill_on_drop(true);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("serde"), "serde was let in: {said}");
    Ok(())
}

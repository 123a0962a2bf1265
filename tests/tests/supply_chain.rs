//! What may come into the tree is what `deny.toml` says: licences, banned crates, sources.

use std::{ffi::OsString, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use evenkeel_e2e::{cache, progress};
use evenkeel_tests::root;
use tokio::{process::Command, sync::OnceCell};

/// cargo-deny as `make deny` installs it, or uses it when it is there.
async fn cargo_deny() -> Result<&'static PathBuf> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAM.get_or_try_init(install).await
}

async fn install() -> Result<PathBuf> {
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let version = makefile.lines().find_map(|line| line.strip_prefix("DENY_VERSION = "));
    let version = version.context("the Makefile says which cargo-deny")?.trim();
    let folder = cache::root()?.join("cargo-deny");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(["install", "--quiet", "--locked", "--debug", "--version", version, "--root"]).arg(&folder);
    command.arg("cargo-deny").current_dir(root()).kill_on_drop(true);
    let output = progress::long(&format!("have cargo-deny {version}"), command.output()).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.join("bin/cargo-deny"))
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
    let config = fs::read_to_string(root().join("deny.toml"))?;
    let banned = config.replacen("{ name = \"ring\" }", "{ name = \"serde\" }", 1);
    ensure!(banned != config, "deny.toml bans ring in a form that this test does not know");
    let folder = evenkeel_e2e::process::Scratch::new("deny")?;
    let path = folder.path().join("deny.toml");
    fs::write(&path, banned)?;
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

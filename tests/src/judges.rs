//! Foreign programs that judge what people and their tools see.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use evenkeel_e2e::tools::{self, Tool};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What kstatus takes an object for (`Current`, `InProgress`, `Failed`, …), and why.
pub async fn kstatus(object: &Value) -> Result<(String, String)> {
    let said = run(Tool::Kstatus, &[], &object.to_string()).await?;
    let (status, why) = said.trim_end().split_once('\t').context("kstatus says a status and a message")?;
    Ok((status.to_owned(), why.to_owned()))
}

/// Runs promtool with something on its standard input; what it printed. Trouble that it finds is an error.
pub async fn promtool(arguments: &[&str], input: &str) -> Result<String> {
    run(Tool::Promtool, arguments, input).await
}

/// Has helm render a chart.
pub async fn helm(arguments: &[&str]) -> Result<String> {
    run(Tool::Helm, arguments, "").await
}

async fn run(tool: Tool, arguments: &[&str], input: &str) -> Result<String> {
    let tools = tools::ensure(&[tool]).await?;
    let mut command = Command::new(tools.path(tool));
    command.args(arguments).current_dir(Path::new("/"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {}", tool.name()))?;
    let mut stdin = child.stdin.take().context("a program has a standard input")?;
    // One that does not read its input may be gone already: what it says then is the answer.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{} {arguments:?}: {out}{err}", tool.name());
    Ok(out.into_owned())
}

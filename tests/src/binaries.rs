//! The programs under test, built once by the cargo that runs the tests.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};

use crate::root;

static BINARIES: OnceCell<Binaries> = OnceCell::const_new();

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `evenkeel-operator`.
    pub operator: PathBuf,
    /// `evenkeel-agent`.
    pub agent: PathBuf,
}

impl Binaries {
    /// Builds them, if they are not as the sources are.
    pub async fn built() -> Result<&'static Self> {
        BINARIES.get_or_try_init(Self::build).await
    }

    /// Those that lie in a folder, as of another version.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is not there", path.display());
            Ok(path)
        };
        Ok(Self { operator: program("evenkeel-operator")?, agent: program("evenkeel-agent")? })
    }

    async fn build() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--locked", "--message-format=json-render-diagnostics"])
            .args(["-p", "evenkeel-operator", "-p", "evenkeel-node-agent", "--bins"])
            .current_dir(root())
            .stdin(Stdio::null())
            .output()
            .await
            .context("run cargo")?;
        if !output.status.success() {
            bail!("building the programs under test failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let executable = |name: &str| {
            let made = messages.iter().find(|message| message["target"]["name"] == name);
            let path = made.and_then(|message| message["executable"].as_str()).map(PathBuf::from);
            path.with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self { operator: executable("evenkeel-operator")?, agent: executable("evenkeel-agent")? })
    }
}

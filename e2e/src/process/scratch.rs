//! A folder that goes with its owner.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// Reads until its owner is gone, which closes the pipe, and then removes the folder; twice, because programs that are
/// just being killed may write once more.
const CLEANER: &str = r#"cat >/dev/null; for pause in 0.2 1; do sleep $pause; rm -rf "$1"; done"#;

/// A temporary folder. It is removed when this is dropped, and also when the process is killed; with `KEEP=1` it stays.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    cleaner: Option<Child>,
}

impl Scratch {
    /// Makes a folder.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("evenkeel-{name}-")).tempdir();
        let path = folder.context("make a temporary folder")?.keep();
        let cleaner = if std::env::var_os("KEEP").is_some() {
            None
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", CLEANER, "sh"]).arg(&path).process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            Some(command.spawn().context("start sh")?)
        };
        Ok(Self { path, cleaner })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut cleaner) = self.cleaner.take() {
            let _ = fs::remove_dir_all(&self.path);
            // Killed before its pipe is closed: it is not needed any more.
            let _ = cleaner.kill();
            let _ = cleaner.wait();
        }
    }
}

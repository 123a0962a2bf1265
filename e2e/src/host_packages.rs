//! Debian packages that the host must have: what is missing is installed, what is there is left alone.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{process::Command, time::sleep};

use crate::{cache, progress};

/// Where programs are looked for besides `PATH`, which on some hosts lacks the administrator's folders.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Another apt on the same host ends within this, or something is wrong with it.
const APT_LOCK_SECONDS: u32 = 600;
/// `apt-get update` does not wait for the lock of the package lists by itself.
const UPDATE_TRIES: u32 = 40;
const UPDATE_PAUSE: Duration = Duration::from_secs(5);

/// Installs the packages of those programs that are not there: pairs of program and Debian package.
pub async fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    if missing(programs).is_empty() {
        return Ok(());
    }
    let _lock = cache::lock(&cache::root()?, "apt").await?;
    let packages = missing(programs);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    progress::long(&format!("install Debian packages {list}"), async {
        update().await?;
        let mut install = apt();
        install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
        let output = install.output().await.context("run apt-get: the host must be Debian")?;
        if !output.status.success() {
            bail!("apt-get install {list} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    })
    .await?;
    match missing(programs).as_slice() {
        [] => Ok(()),
        rest => bail!("packages {} are installed and a program of theirs is still missing", rest.join(" ")),
    }
}

/// The full path of a program.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("find {program}: it is not installed"))
}

fn missing(programs: &[(&str, &str)]) -> Vec<String> {
    let mut packages: Vec<String> = programs
        .iter()
        // A program that has no place in `PATH` is named by its whole path.
        .filter(|(program, _)| find(program).is_err() && !PathBuf::from(program).is_file())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

async fn update() -> Result<()> {
    for attempt in 1.. {
        let output = apt().args(["update", "-qq"]).output().await.context("run apt-get")?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !message.contains("lock") || attempt == UPDATE_TRIES {
            bail!("apt-get update failed: {message}");
        }
        sleep(UPDATE_PAUSE).await;
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg(format!("-oDPkg::Lock::Timeout={APT_LOCK_SECONDS}"))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

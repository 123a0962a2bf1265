//! What is expensive is made once and kept outside the checkout, named by what it was made from.

use std::{
    fmt::Write as _,
    fs::{self, File},
    future::Future,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::progress;

/// Half of a SHA-256: enough that two keys never meet, short enough for a path.
const KEY_BYTES: usize = 16;

/// The cache's folder: `$EVENKEEL_CACHE`, else `$XDG_CACHE_HOME/evenkeel`, else `~/.cache/evenkeel`.
pub fn root() -> Result<PathBuf> {
    let from =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = match (from("EVENKEEL_CACHE"), from("XDG_CACHE_HOME"), from("HOME")) {
        (Some(own), _, _) => own,
        (None, Some(shared), _) => shared.join("evenkeel"),
        (None, None, Some(home)) => home.join(".cache/evenkeel"),
        (None, None, None) => bail!("no place for the cache: set EVENKEEL_CACHE"),
    };
    fs::create_dir_all(&root).with_context(|| format!("create the cache {}", root.display()))?;
    root.canonicalize().with_context(|| format!("open the cache {}", root.display()))
}

/// A key made of everything that an entry is made from. Each part is hashed with its length, so that parts cannot run
/// into each other.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..KEY_BYTES])
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The folder `kind/key` of the cache. When it is not there, `build` fills a folder of another name, which gets the
/// right one when it is complete; two processes at once build it once.
pub async fn entry<B, F>(kind: &str, key: &str, build: B) -> Result<PathBuf>
where
    B: FnOnce(PathBuf) -> F,
    F: Future<Output = Result<()>>,
{
    let folder = root()?.join(kind);
    let entry = folder.join(key);
    if entry.exists() {
        return Ok(entry);
    }
    let _lock = lock(&folder, key).await?;
    if entry.exists() {
        return Ok(entry);
    }
    // Nobody else writes it while we hold the lock: one that is there was left by a builder that was killed.
    let unfinished = folder.join(format!("{key}.unfinished"));
    fresh(&unfinished)?;
    build(unfinished.clone()).await.with_context(|| format!("build {kind} {key}"))?;
    fs::rename(&unfinished, &entry).with_context(|| format!("finish {}", entry.display()))?;
    Ok(entry)
}

/// An empty folder, whatever was there.
pub(crate) fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

/// Waits for the lock `name` of a folder; it is free again when the file is dropped, or its process ends.
pub(crate) async fn lock(folder: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    let waiting = format!("wait for another process that builds {name}");
    progress::long(&waiting, async move {
        tokio::task::spawn_blocking(move || file.lock().map(|()| file))
            .await
            .context("the thread that waits for a lock ended")?
            .with_context(|| format!("lock {}", path.display()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |parts: [&str; 2]| key(parts.map(str::as_bytes));
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_eq!(key(["ab", "c"]), key(["ab", "c"]));
        assert_eq!(key(["", ""]).len(), 2 * KEY_BYTES);
    }
}

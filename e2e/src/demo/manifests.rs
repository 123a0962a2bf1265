//! The documents in `e2e/demo`, applied as a user would: with kubectl, and the own registry's name in them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use crate::{process::output, progress};

/// The name that the documents have for the reader's own registry.
const EXAMPLE: &str = "registry.example";

/// Applies a document.
pub async fn apply(cluster: &Cluster, file: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mine = tempfile::NamedTempFile::with_suffix(".yaml").context("make a temporary file")?;
    fs::write(mine.path(), text.replace(EXAMPLE, &cluster.registry_in_machines()))
        .context("write a temporary file")?;
    let mut kubectl = cluster.kubectl();
    kubectl.args(["apply", "--filename"]).arg(mine.path());
    progress::step(&format!("kubectl apply -f e2e/demo/{file}"));
    for line in String::from_utf8_lossy(&output(kubectl).await?).lines() {
        progress::step(&format!("  {line}"));
    }
    Ok(())
}

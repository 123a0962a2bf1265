//! Layers with a chunk table, made by the code of those who made their forms.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::{Compression, Layer};
use crate::{
    process::output,
    progress,
    tools::{self, Tool},
};

/// The form of a chunk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What containers/storage writes, with zstd.
    ZstdChunked,
    /// What the stargz snapshotter writes, with gzip.
    EStargz,
    /// The same, with the tar as it was before, as BuildKit has it written.
    EStargzLossless,
}

impl Layer {
    /// A layer with a chunk table, of a tar archive in a file; it is written to `blob`, and its annotations to a file
    /// beside it. When these are there already they are taken as they are.
    pub async fn chunked(archive: &Path, blob: &Path, form: Form) -> Result<Self> {
        let (name, compression) = match form {
            Form::ZstdChunked => ("zstd-chunked", Compression::Zstd),
            Form::EStargz => ("estargz", Compression::Gzip),
            Form::EStargzLossless => ("estargz-lossless", Compression::Gzip),
        };
        let beside = blob.with_extension("annotations.json");
        if !beside.exists() {
            let mut command = Command::new(tools::ensure(&[Tool::Chunked]).await?.path(Tool::Chunked));
            command.arg(name).arg(archive).arg(blob);
            let making = format!("make a layer with a chunk table ({name})");
            let annotations = progress::long(&making, output(command)).await?;
            fs::write(&beside, annotations).with_context(|| format!("write {}", beside.display()))?;
        }
        let annotations = fs::read(&beside).with_context(|| format!("read {}", beside.display()))?;
        let annotations: BTreeMap<String, String> =
            serde_json::from_slice(&annotations).context("read what chunked printed")?;
        let blob = blob.to_owned();
        let look = move || Self::from_file(&blob, compression);
        let layer =
            tokio::task::spawn_blocking(look).await.context("the thread that reads a layer ended")??;
        Ok(Self { annotations, ..layer })
    }
}

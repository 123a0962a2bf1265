//! Layers with a chunk table, made by the code of those who made their forms.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::{Compression, Layer};
use crate::{
    process::output,
    tools::{self, Tool},
};

/// The form of a chunk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What containers/storage writes, with zstd.
    ZstdChunked,
    /// What the stargz snapshotter writes, with gzip.
    EStargz,
}

impl Layer {
    /// A layer with a chunk table, of a tar archive in a file; it is written to `blob`.
    pub async fn chunked(archive: &Path, blob: &Path, form: Form) -> Result<Self> {
        let (name, compression) = match form {
            Form::ZstdChunked => ("zstd-chunked", Compression::Zstd),
            Form::EStargz => ("estargz", Compression::Gzip),
        };
        let mut command = Command::new(tools::ensure(&[Tool::Chunked]).await?.path(Tool::Chunked));
        command.arg(name).arg(archive).arg(blob);
        let annotations: BTreeMap<String, String> =
            serde_json::from_slice(&output(command).await?).context("read what chunked printed")?;
        let blob = blob.to_owned();
        let look = move || Self::from_file(&blob, compression);
        let layer =
            tokio::task::spawn_blocking(look).await.context("the thread that reads a layer ended")??;
        Ok(Self { annotations, ..layer })
    }
}

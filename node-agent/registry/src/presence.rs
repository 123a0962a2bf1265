//! Whether layers are there: asked before anything is given up for them.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use oci_spec::distribution::Reference;

use crate::{
    Image, Layer, Registry, RegistryError,
    client::{Ask, Client},
    endpoint::{self, Content, Endpoint},
};

/// Layers that are asked for at a time.
const AT_ONCE: usize = 8;

impl Registry {
    /// Fails if one of the image's layers is nowhere to be had, as every place says that may be asked for it. What cannot be
    /// found out is no failure: whoever fetches the layer hears of it, and has more patience.
    pub async fn has_layers(&self, image: &Image, layers: &[&Layer]) -> Result<(), RegistryError> {
        let digests: BTreeSet<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let ask = |digest| self.client.has_blob(&image.reference, digest);
        let asked: Vec<_> = digests.into_iter().map(ask).collect();
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(())
    }
}

impl Client {
    /// Asks from place to place, and none of them twice. Says nothing of those that fail: that is for a fetch to judge.
    async fn has_blob(&self, reference: &Reference, digest: &str) -> Result<(), RegistryError> {
        let mut nowhere = Ok(());
        for endpoint in endpoint::all(&self.options, reference)? {
            if endpoint.is_mirror() && !self.options.reputation.may_ask(&endpoint.host, Some(digest)) {
                return Ok(());
            }
            let asked = self.has_blob_at(&endpoint, reference, digest);
            match tokio::time::timeout(self.options.limits.connect, asked).await {
                Ok(Err(error)) if error.is_not_found() => nowhere = Err(error),
                _ => return Ok(()),
            }
        }
        nowhere
    }

    /// A place that says no without being asked for bytes is asked for the first one: not all know what `HEAD` is.
    async fn has_blob_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        digest: &str,
    ) -> Result<(), RegistryError> {
        let content = Content::Blob(digest);
        let head = Ask { reference, content, from: 0, before: None, bytes: false };
        match self.ask(endpoint, head).await {
            Err(error) if error.is_not_found() => {
                self.ask(endpoint, Ask { before: Some(1), bytes: true, ..head }).await.map(drop)
            }
            answer => answer.map(drop),
        }
    }
}

//! A blob's bytes, in order and each once, whatever happens to the connection between.

use std::io;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use oci_client::{
    Reference,
    client::{BlobResponse, SizedStream},
};
use sha2::{Digest as _, Sha256};

use crate::{RegistryError, clients::Clients, digest, patience::Patience};

/// How often the beginning may be fetched again in vain, from a registry that does not know ranges.
const RESTARTS_MAX: u32 = 3;

/// A blob that is being fetched. Its end is told only after its size and its digest were checked.
pub struct Blob<'a> {
    clients: &'a Clients,
    reference: &'a Reference,
    digest: &'a str,
    size: u64,
    /// Bytes that were given out.
    at: u64,
    /// Bytes of the answer that were given out before it.
    skip: u64,
    hash: Sha256,
    stream: Option<SizedStream>,
    patience: Patience,
    restarts: u32,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(clients: &'a Clients, reference: &'a Reference, digest: &'a str, size: u64) -> Self {
        Self {
            clients,
            reference,
            digest,
            size,
            at: 0,
            skip: 0,
            hash: Sha256::new(),
            stream: None,
            patience: Patience::default(),
            restarts: 0,
        }
    }

    /// The next bytes; `None` at the end, when everything was checked.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.at < self.size {
            match self.advance().await {
                // Only a part of what was given out before.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.patience.progress();
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    self.stream = None;
                    if self.restarts > RESTARTS_MAX {
                        return Err(error);
                    }
                    self.patience.bear(error).await?;
                }
            }
        }
        self.finish()
    }

    /// One piece of an answer.
    async fn advance(&mut self) -> Result<Bytes, RegistryError> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let stream = self.stream.as_mut().expect("it was opened when there was none");
        let mut bytes = match stream.next().await {
            Some(Ok(bytes)) => bytes,
            ended => return Err(self.interrupted(ended.and_then(Result::err))),
        };
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= known as u64;
        bytes.advance(known);
        let end = self.at + bytes.len() as u64;
        if end > self.size {
            return Err(self.truncated(end));
        }
        self.hash.update(&bytes);
        self.at = end;
        Ok(bytes)
    }

    /// Asks for what is missing. Which bytes a partial answer begins with is known only at the end, by the digest: the
    /// library shows no more of it than its length.
    async fn open(&mut self) -> Result<SizedStream, RegistryError> {
        let answer = match self.clients.blob(self.reference, self.digest, self.at).await {
            Err(RegistryError::NotFound { image }) => {
                return Err(RegistryError::NotFound { image: format!("blob {} of {image}", self.digest) });
            }
            other => other?.ok_or_else(|| self.truncated(self.at))?,
        };
        let (BlobResponse::Full(stream) | BlobResponse::Partial(stream)) = &answer;
        // All of it is no part, whatever it is called.
        let whole = matches!(answer, BlobResponse::Full(_)) || stream.content_length == Some(self.size);
        self.skip = if whole { self.at } else { 0 };
        self.restarts += u32::from(self.skip > 0);
        if self.restarts > RESTARTS_MAX {
            return Err(self.interrupted(None));
        }
        let total = stream.content_length.map(|length| length + self.at - self.skip);
        if let Some(total) = total.filter(|total| *total != self.size) {
            return Err(self.truncated(total));
        }
        let (BlobResponse::Full(stream) | BlobResponse::Partial(stream)) = answer;
        Ok(stream)
    }

    fn finish(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let actual = digest::finish(self.hash.clone());
        if actual == self.digest {
            return Ok(None);
        }
        Err(RegistryError::DigestMismatch {
            what: format!("blob {} of {}", self.digest, self.reference.whole()),
            expected: self.digest.to_owned(),
            actual,
        })
    }

    fn truncated(&self, actual: u64) -> RegistryError {
        RegistryError::Truncated {
            registry: self.reference.resolve_registry().to_owned(),
            digest: self.digest.to_owned(),
            actual,
            size: self.size,
        }
    }

    fn interrupted(&self, source: Option<io::Error>) -> RegistryError {
        RegistryError::Interrupted {
            registry: self.reference.resolve_registry().to_owned(),
            digest: self.digest.to_owned(),
            at: self.at,
            size: self.size,
            source,
        }
    }
}

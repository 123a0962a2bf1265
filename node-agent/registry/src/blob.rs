//! A blob's bytes, in order and each once, whatever happens to the connection between.

use bytes::Bytes;
use oci_spec::distribution::Reference;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap},
};
use sha2::{Digest as _, Sha256};

use crate::{
    RegistryError, digest,
    transport::{Request, Transport, pause},
};

const ANYTHING: &str = "application/octet-stream, */*";
/// How often a download is taken up without any byte of progress before it is given up: with the pauses between,
/// half a minute and the timeouts.
const FAILURES_MAX: u32 = 6;
/// How often the beginning may be fetched again in vain, from a registry that does not know ranges.
const RESTARTS_MAX: u32 = 3;

/// A blob that is being fetched. Its end is told only after its size and its digest were checked.
pub struct Blob<'a> {
    transport: &'a Transport,
    reference: &'a Reference,
    digest: &'a str,
    size: u64,
    /// Bytes that were given out.
    at: u64,
    /// Bytes of the answer that were given out before it.
    skip: u64,
    hash: Sha256,
    response: Option<Response>,
    failures: u32,
    restarts: u32,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        reference: &'a Reference,
        digest: &'a str,
        size: u64,
    ) -> Self {
        Self {
            transport,
            reference,
            digest,
            size,
            at: 0,
            skip: 0,
            hash: Sha256::new(),
            response: None,
            failures: 0,
            restarts: 0,
        }
    }

    /// The next bytes; `None` at the end, when everything was checked.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.at < self.size {
            match self.advance().await {
                Ok(Some(bytes)) => {
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                // Only a part of what was given out before.
                Ok(None) => {}
                Err(failure) => {
                    self.response = None;
                    self.failures += 1;
                    let (given_up, asked) = match &failure {
                        Some(error) if !error.transient() => (true, None),
                        other => {
                            let asked = other.as_ref().and_then(RegistryError::retry_after);
                            (self.failures >= FAILURES_MAX || self.restarts > RESTARTS_MAX, asked)
                        }
                    };
                    if given_up {
                        return Err(self.give_up(failure));
                    }
                    tracing::info!(layer = self.digest, at = self.at, "taking up a download that broke");
                    pause(self.failures, asked).await;
                }
            }
        }
        self.finish()
    }

    /// One piece of an answer. `Err(None)` is an answer that ended early.
    async fn advance(&mut self) -> Result<Option<Bytes>, Option<RegistryError>> {
        if self.response.is_none() {
            self.response = Some(self.open().await?);
        }
        let response = self.response.as_mut().expect("it was opened when there was none");
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|source| self.transport.unreachable(self.reference, source))?;
        let mut bytes = chunk.ok_or(None)?;
        let known = self.skip.min(bytes.len() as u64);
        self.skip -= known;
        let bytes = bytes.split_off(usize::try_from(known).expect("at most the length of a buffer"));
        let end = self.at + bytes.len() as u64;
        if end > self.size {
            return Err(Some(self.truncated(end)));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.hash.update(&bytes);
        self.at = end;
        Ok(Some(bytes))
    }

    async fn open(&mut self) -> Result<Response, Option<RegistryError>> {
        let request = Request {
            reference: self.reference,
            path: format!("blobs/{}", self.digest),
            accept: ANYTHING,
            from: (self.at > 0).then_some(self.at),
        };
        let response = self.transport.get_once(&request).await.map_err(|error| match error {
            RegistryError::NotFound { image } => {
                RegistryError::NotFound { image: format!("blob {} of {image}", self.digest) }
            }
            other => other,
        })?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (first, total) = content_range(headers).unwrap_or((u64::MAX, None));
                if let Some(total) = total.filter(|total| *total != self.size) {
                    return Err(Some(self.truncated(total)));
                }
                // An answer to another question than ours is no answer.
                if first != self.at {
                    return Err(None);
                }
                self.skip = 0;
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Some(self.truncated(self.at))),
            _ => {
                if let Some(total) = content_length(headers).filter(|total| *total != self.size) {
                    return Err(Some(self.truncated(total)));
                }
                self.restarts += u32::from(self.at > 0);
                self.skip = self.at;
            }
        }
        Ok(response)
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

    fn give_up(&self, failure: Option<RegistryError>) -> RegistryError {
        match failure {
            Some(error) if !error.transient() || self.at == 0 => error,
            source => RegistryError::Interrupted {
                registry: self.reference.resolve_registry().to_owned(),
                digest: self.digest.to_owned(),
                at: self.at,
                size: self.size,
                source: source.map(Box::new),
            },
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// First byte and, unless it is a star, the total of `bytes FIRST-LAST/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

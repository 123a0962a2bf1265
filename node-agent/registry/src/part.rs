//! A part of a blob, in order and each byte once, whatever happens to the connection between.
//!
//! A part has no digest of its own: whoever asks for it must know how to check it.

use std::ops::Range;

use bytes::Bytes;
use oci_spec::distribution::Reference;
use reqwest::Response;

use crate::{
    RegistryError,
    client::{Ask, Client},
    content_range::ContentRange,
    endpoint::{Content, Endpoint},
    error,
    patience::Patience,
    route::{self, Route},
};

/// A part of a blob that is being fetched.
pub struct Part<'a> {
    client: &'a Client,
    reference: &'a Reference,
    digest: &'a str,
    /// Bytes of the whole blob.
    size: u64,
    /// What is still to come.
    left: Range<u64>,
    answer: Option<Answer>,
    patience: Patience<'a>,
}

/// What is being read.
struct Answer {
    response: Response,
    endpoint: Endpoint,
    /// Where in the blob it ends.
    end: u64,
}

impl<'a> Part<'a> {
    pub(crate) fn new(
        client: &'a Client,
        reference: &'a Reference,
        (digest, size): (&'a str, u64),
        part: Range<u64>,
    ) -> Self {
        let patience = Patience::new(&client.options.limits);
        Self { client, reference, digest, size, left: part, answer: None, patience }
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while !self.left.is_empty() {
            match self.advance().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.patience.progress();
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    self.answer = None;
                    self.patience.bear(error).await?;
                }
            }
        }
        Ok(None)
    }

    /// All of it, which the caller knows to be small.
    pub async fn read(mut self) -> Result<Vec<u8>, RegistryError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// One piece of an answer.
    async fn advance(&mut self) -> Result<Bytes, RegistryError> {
        // A registry may give less than was asked for.
        if self.answer.as_ref().is_none_or(|answer| answer.end == self.left.start) {
            self.answer = Some(self.open().await?);
        }
        let answer = self.answer.as_mut().expect("it was opened when there was none");
        let bytes = match answer.response.chunk().await {
            Ok(Some(bytes)) => bytes,
            ended => return Err(self.broken(ended.err())),
        };
        let end = self.left.start + bytes.len() as u64;
        if end > answer.end {
            return Err(self.broken(None));
        }
        self.left.start = end;
        Ok(bytes)
    }

    /// Asks for what is missing, from place to place.
    async fn open(&mut self) -> Result<Answer, RegistryError> {
        let content = Content::Blob(self.digest);
        let ask = Ask {
            reference: self.reference,
            content,
            from: self.left.start,
            before: Some(self.left.end),
            bytes: true,
        };
        let mut route = Route::new(self.client, ask)?;
        loop {
            let endpoint = route.next();
            match self.open_at(&endpoint, ask).await {
                Ok(answer) => break Ok(answer),
                Err(error) => route.failed(&endpoint, error)?,
            }
        }
    }

    async fn open_at(&self, endpoint: &Endpoint, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        let no_parts = || RegistryError::NoParts {
            registry: endpoint.host.clone(),
            digest: self.digest.to_owned(),
            from: self.left.start,
            before: self.left.end,
        };
        if !self.client.options.reputation.may_ask_for_parts(&endpoint.host) {
            return Err(no_parts());
        }
        let response = self.client.ask(endpoint, ask).await?;
        let end = self.end_of(&response).ok_or_else(no_parts)?;
        Ok(Answer { response, endpoint: endpoint.clone(), end })
    }

    /// Where an answer ends, if it begins where it should and has nothing else.
    fn end_of(&self, response: &Response) -> Option<u64> {
        let range = ContentRange::find(response.headers()).filter(|_| response.status() == 206)?;
        let (first, last) = range.part?;
        let of_blob = range.size.is_none_or(|size| size == self.size);
        let fits = first == self.left.start && last < self.left.end;
        let length = response.content_length();
        (of_blob && fits && length.is_none_or(|length| length == last + 1 - first)).then_some(last + 1)
    }

    /// The answer ended, or the connection did.
    fn broken(&mut self, source: Option<reqwest::Error>) -> RegistryError {
        let Answer { endpoint, .. } = self.answer.take().expect("what is being read is there");
        let error = RegistryError::Interrupted {
            registry: endpoint.host.clone(),
            digest: self.digest.to_owned(),
            at: self.left.start,
            size: self.size,
            source: source.map(error::without_address),
        };
        if endpoint.is_mirror() {
            route::note(self.client, &endpoint, Content::Blob(self.digest), &error);
        }
        error
    }
}

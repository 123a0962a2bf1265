//! A blob's bytes, in order and each once, whatever happens to the connection between.

use std::collections::BTreeSet;

use bytes::{Buf as _, Bytes};
use oci_spec::distribution::Reference;
use reqwest::Response;
use sha2::{Digest as _, Sha256};

use crate::{
    RegistryError,
    client::{self, Ask, Client},
    content_range::ContentRange,
    digest,
    endpoint::{Content, Endpoint},
    error, http,
    patience::Patience,
    route::{self, Route},
};

/// How often the beginning may be fetched again in vain, from a registry that does not know ranges.
const RESTARTS_MAX: u32 = 3;

/// A blob that is being fetched. Its end is told only after its size and its digest were checked.
pub struct Blob<'a> {
    client: &'a Client,
    reference: &'a Reference,
    digest: &'a str,
    size: u64,
    /// Bytes that were given out.
    at: u64,
    hash: Sha256,
    answer: Option<Answer>,
    /// The place that is asked for the whole: it gave a part that could not be placed.
    without_parts: Option<String>,
    restarts: u32,
    /// Mirrors that some of the bytes are from.
    mirrors: BTreeSet<String>,
    /// Places that gave parts of it.
    parts_from: BTreeSet<String>,
    patience: Patience<'a>,
}

/// What is being read.
struct Answer {
    response: Response,
    endpoint: Endpoint,
    /// Bytes at its beginning that were given out before it.
    skip: u64,
    /// Where in the blob it ends.
    end: u64,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(client: &'a Client, reference: &'a Reference, digest: &'a str, size: u64) -> Self {
        Self {
            client,
            reference,
            digest,
            size,
            at: 0,
            hash: Sha256::new(),
            answer: None,
            without_parts: None,
            restarts: 0,
            mirrors: BTreeSet::new(),
            parts_from: BTreeSet::new(),
            patience: Patience::new(&client.options.limits),
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
                    self.answer = None;
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
        // A registry may give less than was asked for.
        if self.answer.as_ref().is_none_or(|answer| answer.end == self.at) {
            self.answer = Some(self.open().await?);
        }
        let answer = self.answer.as_mut().expect("it was opened when there was none");
        let mut bytes = match answer.response.chunk().await {
            Ok(Some(bytes)) => bytes,
            ended => return Err(self.broken(ended.err())),
        };
        let known = usize::try_from(answer.skip).unwrap_or(usize::MAX).min(bytes.len());
        answer.skip -= known as u64;
        bytes.advance(known);
        let end = self.at + bytes.len() as u64;
        if end > answer.end {
            return Err(self.too_long(end));
        }
        if answer.endpoint.is_mirror() && !self.mirrors.contains(&answer.endpoint.host) {
            self.mirrors.insert(answer.endpoint.host.clone());
        }
        self.hash.update(&bytes);
        self.at = end;
        Ok(bytes)
    }

    /// Asks for what is missing, from place to place.
    async fn open(&mut self) -> Result<Answer, RegistryError> {
        let ask = Ask {
            reference: self.reference,
            content: Content::Blob(self.digest),
            from: 0,
            before: None,
            bytes: true,
        };
        let mut route = Route::new(self.client, ask)?;
        loop {
            let endpoint = route.next();
            match self.open_at(&endpoint, ask).await {
                Ok(answer) => break self.count(answer),
                Err(error) => route.failed(&endpoint, error)?,
            }
        }
    }

    async fn open_at(&mut self, endpoint: &Endpoint, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        let parts = self.without_parts.as_ref() != Some(&endpoint.host)
            && self.client.options.reputation.may_ask_for_parts(&endpoint.host);
        let from = if parts { self.at } else { 0 };
        let response = self.client.ask(endpoint, Ask { from, ..ask }).await?;
        let of_another_size = match self.place(&response, from) {
            Ok(Some((start, end))) => {
                if start > 0 {
                    self.parts_from.insert(endpoint.host.clone());
                }
                let skip = self.at - start;
                return Ok(Answer { response, endpoint: endpoint.clone(), skip, end });
            }
            Ok(None) => None,
            // Whether that is so of the blob, or only of the part, the whole tells.
            Err(error) if from > 0 => Some(error),
            Err(_) if http::is_page(&response) => return Err(client::page(endpoint.place(self.reference))),
            Err(error) => return Err(error),
        };
        self.without_parts = Some(endpoint.host.clone());
        match (self.whole_at(endpoint, ask).await, of_another_size) {
            (Err(RegistryError::Refused { .. }), Some(error)) => Err(error),
            (answer, _) => answer,
        }
    }

    async fn whole_at(&self, endpoint: &Endpoint, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        let response = self.client.ask(endpoint, ask).await?;
        match self.place(&response, 0)? {
            Some((start, end)) => {
                Ok(Answer { response, endpoint: endpoint.clone(), skip: self.at - start, end })
            }
            None => Err(RegistryError::Refused {
                repository: endpoint.place(self.reference),
                answer: format!("{} when asked for all of {}", response.status(), self.digest),
            }),
        }
    }

    /// Which bytes of the blob an answer has, first to before last; `None` if it has not those that were asked for, or
    /// does not say.
    fn place(&self, response: &Response, from: u64) -> Result<Option<(u64, u64)>, RegistryError> {
        let length = response.content_length();
        let of_size = |size: Option<u64>| match size {
            Some(size) if size != self.size => Err(self.truncated(size)),
            _ => Ok(()),
        };
        if response.status() == 200 {
            of_size(length)?;
            return Ok(Some((0, self.size)));
        }
        let Some(range) = ContentRange::find(response.headers()) else { return Ok(None) };
        of_size(range.size)?;
        let Some((first, last)) = range.part.filter(|_| response.status() == 206) else { return Ok(None) };
        let useful = first <= from && first <= self.at && self.at <= last && last < self.size;
        let fits = length.is_none_or(|length| length == last + 1 - first);
        Ok((useful && fits).then_some((first, last + 1)))
    }

    /// Counts beginnings that come again.
    fn count(&mut self, answer: Answer) -> Result<Answer, RegistryError> {
        self.restarts += u32::from(answer.skip > 0);
        if self.restarts > RESTARTS_MAX {
            return Err(self.interrupted(&answer.endpoint, None));
        }
        Ok(answer)
    }

    fn finish(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let actual = digest::finish(self.hash.clone());
        if actual == self.digest {
            return Ok(None);
        }
        let what = format!("blob {} of {}", self.digest, self.reference.whole());
        let expected = self.digest.to_owned();
        let reputation = &self.client.options.reputation;
        let listed =
            |hosts: &BTreeSet<String>| hosts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if !self.mirrors.is_empty() {
            self.mirrors.iter().for_each(|mirror| reputation.lied(mirror, self.digest));
            return Err(RegistryError::WrongMirror { what, mirrors: listed(&self.mirrors), actual });
        }
        if !self.parts_from.is_empty() {
            self.parts_from.iter().for_each(|place| reputation.gave_wrong_parts(place));
            return Err(RegistryError::WrongParts { what, registry: listed(&self.parts_from), actual });
        }
        Err(RegistryError::DigestMismatch { what, expected, actual })
    }

    /// The answer ended, or the connection did.
    fn broken(&mut self, source: Option<reqwest::Error>) -> RegistryError {
        let answer = self.answer.take().expect("what is being read is there");
        let error = self.interrupted(&answer.endpoint, source);
        if answer.endpoint.is_mirror() {
            route::note(self.client, &answer.endpoint, Content::Blob(self.digest), &error);
        }
        error
    }

    /// More came than there can be. From a mirror that is no reason to give up.
    fn too_long(&mut self, actual: u64) -> RegistryError {
        let answer = self.answer.take().expect("what is being read is there");
        let error = self.truncated(actual);
        if !answer.endpoint.is_mirror() {
            return error;
        }
        route::note(self.client, &answer.endpoint, Content::Blob(self.digest), &error);
        self.interrupted(&answer.endpoint, None)
    }

    fn truncated(&self, actual: u64) -> RegistryError {
        RegistryError::Truncated {
            registry: self.reference.registry().to_owned(),
            digest: self.digest.to_owned(),
            actual,
            size: self.size,
        }
    }

    fn interrupted(&self, endpoint: &Endpoint, source: Option<reqwest::Error>) -> RegistryError {
        RegistryError::Interrupted {
            registry: endpoint.host.clone(),
            digest: self.digest.to_owned(),
            at: self.at,
            size: self.size,
            source: source.map(error::without_address),
        }
    }
}

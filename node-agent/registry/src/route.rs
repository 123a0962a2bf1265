//! From place to place until one has it.

use bytes::Bytes;
use oci_spec::distribution::Reference;
use serde::de::IgnoredAny;

use crate::{
    RegistryError,
    client::{self, Ask, Client},
    digest,
    endpoint::{self, Content, Endpoint},
    http::{self, ReadError},
    patience::Patience,
};

/// Places that are left to ask, and why those before would not do.
pub(crate) struct Route<'a> {
    client: &'a Client,
    content: Content<'a>,
    left: std::vec::IntoIter<Endpoint>,
    failures: Vec<(String, RegistryError)>,
}

impl<'a> Route<'a> {
    /// All places for something, but mirrors that rest, that lied about it, or that are not trusted with it.
    pub(crate) fn new(client: &'a Client, ask: Ask<'a>) -> Result<Self, RegistryError> {
        let mut all = endpoint::all(&client.options, ask.reference)?;
        let reputation = &client.options.reputation;
        all.retain(|endpoint| {
            !endpoint.is_mirror()
                || (endpoint.may_serve(ask.content)
                    && reputation.may_ask(&endpoint.host, ask.content.digest()))
        });
        Ok(Self { client, content: ask.content, left: all.into_iter(), failures: Vec::new() })
    }

    /// The next place. The last one is the registry itself: when that fails, [`Route::failed`] is the end.
    pub(crate) fn next(&mut self) -> Endpoint {
        self.left.next().expect("the registry itself is the last place, and its failure ends the route")
    }

    /// Takes note of a failure. Gives it back, with those before, when there is no other place.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint, error: RegistryError) -> Result<(), RegistryError> {
        if endpoint.is_mirror() {
            note(self.client, endpoint, self.content, &error);
            self.failures.push((endpoint.host.clone(), error));
            return Ok(());
        }
        Err(with_mirrors(&self.failures, error))
    }
}

/// Remembers what a mirror's failure says of it. That it does not have something, or gives no parts, says nothing.
pub(crate) fn note(client: &Client, mirror: &Endpoint, content: Content<'_>, error: &RegistryError) {
    let reputation = &client.options.reputation;
    tracing::info!(mirror = mirror.host, %error, "a mirror does not serve; going on without it");
    match (error, content.digest()) {
        (RegistryError::NotFound { .. } | RegistryError::NoParts { .. }, _) => {}
        (
            RegistryError::DigestMismatch { .. }
            | RegistryError::Truncated { .. }
            | RegistryError::TooLarge { .. },
            Some(digest),
        ) => reputation.lied(&mirror.host, digest),
        _ => reputation.failed(&mirror.host, client.options.limits.mirror_rest),
    }
}

/// The registry's own failure, with those of its mirrors: where only mirrors can be reached, theirs tell more.
fn with_mirrors(failures: &[(String, RegistryError)], source: RegistryError) -> RegistryError {
    let broken = failures.iter().filter(|(_, error)| !error.is_not_found());
    let said: Vec<String> = broken.map(|(host, error)| format!("{host}: {error}")).collect();
    if said.is_empty() {
        return source;
    }
    RegistryError::Mirrors { said: said.join("; "), source: Box::new(source) }
}

impl Client {
    /// A document or a small blob: all of it, checked against its digest where it has one.
    pub(crate) async fn fetch(
        &self,
        reference: &Reference,
        content: Content<'_>,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let ask = Ask { reference, content, from: 0, before: None, bytes: true };
        let mut patience = Patience::new(&self.options.limits);
        loop {
            match self.fetch_once(ask, limit).await {
                Err(error) => patience.bear(error).await?,
                bytes => return bytes,
            }
        }
    }

    async fn fetch_once(&self, ask: Ask<'_>, limit: usize) -> Result<Bytes, RegistryError> {
        let mut route = Route::new(self, ask)?;
        loop {
            let endpoint = route.next();
            match self.fetch_from(&endpoint, ask, limit).await {
                Err(error) => route.failed(&endpoint, error)?,
                bytes => return bytes,
            }
        }
    }

    async fn fetch_from(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let response = self.ask(endpoint, ask).await?;
        let (place, is_page) = (endpoint.place(ask.reference), http::is_page(&response));
        let what = || match ask.content {
            Content::Manifest(name) => format!("the manifest {name} of {place}"),
            Content::Blob(digest) => format!("blob {digest} of {place}"),
            Content::Referrers(digest) => format!("the list of referrers of {digest} in {place}"),
            Content::Tags => format!("the list of tags of {place}"),
            Content::Page(url) => format!("the page {url} of a list of {place}"),
        };
        let bytes = match http::read(response, limit).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLarge) => return Err(RegistryError::TooLarge { what: what(), limit }),
            Err(ReadError::Network(source)) => return Err(self.failed(endpoint, ask.reference, source)),
        };
        let sound = match ask.content.digest() {
            Some(digest) => digest::check(&what(), digest, &bytes),
            // Whoever reads it says what is wrong with it.
            None => Ok(()),
        };
        if is_page && (sound.is_err() || serde_json::from_slice::<IgnoredAny>(&bytes).is_err()) {
            return Err(client::page(place));
        }
        sound.map(|()| bytes)
    }
}

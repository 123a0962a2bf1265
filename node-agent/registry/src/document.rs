//! Documents behind plain addresses, fetched with the same certificates, proxy and patience as images.

use std::time::SystemTime;

use bytes::Bytes;
use reqwest::{
    Url,
    header::{ETAG, IF_NONE_MATCH},
};

use crate::{
    Registry, RegistryError, error,
    http::{self, ReadError},
    patience::Patience,
    retry_after,
    tls::Tls,
};

/// What is behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The same as when it had the entity tag that was shown.
    Unchanged,
    /// Something that was not known.
    Changed {
        /// Its bytes.
        bytes: Bytes,
        /// Its entity tag (RFC 9110), if the server gives one.
        etag: Option<String>,
    },
}

impl Registry {
    /// What is at `url`, of which no more than `limit` bytes are read; with the entity tag of what is known, only if it
    /// is something else. Without TLS only where `pull` allows plain HTTP.
    pub async fn document(
        &self,
        url: &str,
        etag: Option<&str>,
        limit: usize,
    ) -> Result<Document, RegistryError> {
        let refused = |answer: &str| refused(url, answer);
        let address = Url::parse(url).map_err(|error| refused(&error.to_string()))?;
        match address.scheme() {
            "https" => {}
            "http" if self.client.options.pull.plain_http => {}
            _ => return Err(refused("it is not an https address, and plain HTTP is not allowed")),
        }
        let mut patience = Patience::new(&self.client.options.limits);
        loop {
            match self.document_once(&address, etag, limit).await {
                Err(error) => patience.bear(error).await?,
                document => return document,
            }
        }
    }

    async fn document_once(
        &self,
        url: &Url,
        etag: Option<&str>,
        limit: usize,
    ) -> Result<Document, RegistryError> {
        let host = url.host_str().unwrap_or_default();
        let away = |source: reqwest::Error| match source.is_redirect() {
            true => refused(url.as_str(), &error::innermost(&source)),
            false if url.scheme() == "http" => error::unreachable(host, "http", source),
            false => error::unreachable(host, "https", source),
        };
        let mut request = self.client.http.follower(&Tls::default())?.client.get(url.clone());
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(away)?;
        match response.status().as_u16() {
            200 => {}
            304 if etag.is_some() => return Ok(Document::Unchanged),
            404 => return Err(RegistryError::NotFound { image: url.to_string() }),
            status @ (408 | 429 | 500..) => {
                let retry_after = retry_after::find(response.headers(), SystemTime::now());
                return Err(RegistryError::Unavailable { repository: host.to_owned(), status, retry_after });
            }
            _ => return Err(refused(url.as_str(), &response.status().to_string())),
        }
        let etag = response.headers().get(ETAG).and_then(|etag| Some(etag.to_str().ok()?.to_owned()));
        match http::read(response, limit).await {
            Ok(bytes) => Ok(Document::Changed { bytes, etag }),
            Err(ReadError::TooLarge) => Err(RegistryError::TooLarge { what: url.to_string(), limit }),
            Err(ReadError::Network(source)) => Err(away(source)),
        }
    }
}

fn refused(url: &str, answer: &str) -> RegistryError {
    RegistryError::Document { url: url.to_owned(), answer: error::beginning(answer) }
}

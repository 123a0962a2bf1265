//! From a channel to its list of versions, in limited time.

use std::time::Duration;

use evenkeel_crds::{ManagedOSVersionChannel, managed_os_version_channel::ChannelType};
use evenkeel_operator_core::channel::{
    document::{self, DocumentError},
    order::NotAConstraint,
    tags,
};
use evenkeel_registry::{Document, Registry, RegistryError, RegistryOptions};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    Known,
    carried::{self, NotCarried},
};
use crate::{
    api::with_causes,
    resolve::{self, Unresolved},
    status::Problem,
};

/// A document, or a handful of small requests. An operator that is told to stop waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(25);

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Carried(#[from] NotCarried),
    #[error("options.constraint: {0}")]
    Constraint(#[from] NotAConstraint),
    #[error(
        "no tag of {0} is a semantic version that satisfies the constraint: push one, or change the constraint"
    )]
    NoTag(String),
}

impl From<RegistryError> for FetchError {
    fn from(error: RegistryError) -> Self {
        Self::Unresolved(error.into())
    }
}

impl FetchError {
    fn problem(self) -> Problem {
        let (reason, passing) = match &self {
            Self::Unresolved(Unresolved::Registry(RegistryError::NotFound { .. })) => ("NotFound", false),
            Self::Unresolved(error) => error.reason(),
            Self::Document(_) | Self::Carried(_) => ("InvalidList", false),
            Self::Constraint(_) => ("InvalidConstraint", false),
            Self::NoTag(_) => ("NoVersions", false),
        };
        Problem { reason: reason.to_owned(), message: with_causes(&self), passing }
    }
}

/// What a channel lists; nothing if it is what is known already.
pub(super) async fn fetch(
    channel: &ManagedOSVersionChannel,
    known: Option<&Known>,
    options: &RegistryOptions,
) -> Result<Option<Known>, Problem> {
    match timeout(FETCH_TIMEOUT, ask(channel, known, options)).await {
        Ok(answer) => answer.map_err(FetchError::problem),
        Err(_) => Err(Problem::passing(
            "RegistryUnreachable",
            format!(
                "the list of versions did not come within {} s: is its server up?",
                FETCH_TIMEOUT.as_secs()
            ),
        )),
    }
}

async fn ask(
    channel: &ManagedOSVersionChannel,
    known: Option<&Known>,
    options: &RegistryOptions,
) -> Result<Option<Known>, FetchError> {
    let spec = &channel.spec;
    // A new client each time: certificates may have changed.
    let registry = Registry::new(RegistryOptions { pull: spec.pull.clone(), ..options.clone() })?;
    // Admission requires that the one that belongs to the type is there.
    let place = |option: &Option<String>| option.clone().unwrap_or_default();
    let found = match spec.r#type {
        ChannelType::Json => json(&registry, &place(&spec.options.uri), known).await?,
        ChannelType::Custom => custom(&registry, channel, &place(&spec.options.image), known).await?,
        ChannelType::Registry => tagged(&registry, channel, &place(&spec.options.repository), known).await?,
    };
    let before = spec.registry.as_deref();
    Ok(found.map(|found| Known { listing: found.listing.behind(before), ..found }))
}

async fn json(registry: &Registry, uri: &str, known: Option<&Known>) -> Result<Option<Known>, FetchError> {
    let etag = known.and_then(|known| known.etag.as_deref());
    let (bytes, etag) = match registry.document(uri, etag, document::BYTES_MAX).await? {
        Document::Unchanged => return Ok(None),
        Document::Changed { bytes, etag } => (bytes, etag),
    };
    Ok(Some(Known { listing: document::parse(&bytes)?, digest: digest(&bytes), etag }))
}

async fn custom(
    registry: &Registry,
    channel: &ManagedOSVersionChannel,
    image: &str,
    known: Option<&Known>,
) -> Result<Option<Known>, FetchError> {
    let policy = resolve::policy(channel.spec.verification.as_ref())?;
    let artifact = registry.artifact(image).await?;
    let digest = artifact.image.rsplit('@').next().unwrap_or_default().to_owned();
    // What is known was checked by these rules: other ones are another generation, of which nothing is known.
    if known.is_some_and(|known| known.digest == digest) {
        return Ok(None);
    }
    resolve::check_signatures(registry, &artifact.image, policy.as_ref()).await?;
    let bytes = carried::list(registry, &artifact).await?;
    Ok(Some(Known { listing: document::parse(&bytes)?, digest, etag: None }))
}

async fn tagged(
    registry: &Registry,
    channel: &ManagedOSVersionChannel,
    repository: &str,
    known: Option<&Known>,
) -> Result<Option<Known>, FetchError> {
    let tags = registry.tags(repository).await?;
    let digest = digest(tags.join("\n").as_bytes());
    if known.is_some_and(|known| known.digest == digest) {
        return Ok(None);
    }
    let constraint = channel.spec.options.constraint.as_deref();
    let listing = tags::list(&channel.name_any(), repository, constraint, &tags)?;
    if listing.versions.is_empty() {
        return Err(FetchError::NoTag(repository.to_owned()));
    }
    Ok(Some(Known { listing, digest, etag: None }))
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers `200` with an entity tag, or `304` to whoever knows it.
    async fn serve(listener: TcpListener) {
        let body = r#"[{"metadata":{"name":"v1"},"spec":{"version":"1","metadata":{"upgradeImage":"r.example/os:1"}}}]"#;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let known =
                String::from_utf8_lossy(&head[..read]).to_lowercase().contains("if-none-match: \"1\"");
            let (status, body) = if known { ("304 X", "") } else { ("200 X", body) };
            let length = body.len();
            let text = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_list_that_is_known_is_not_sent_again_and_one_that_is_away_may_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener));
        let spec = json!({
            "type": "json", "options": { "uri": format!("http://{address}/channel.json") },
            "pull": { "plainHttp": true },
        });
        let channel = ManagedOSVersionChannel::new("stable", serde_json::from_value(spec).unwrap());
        let limits = evenkeel_registry::Limits { pause: Duration::from_millis(1), ..Default::default() };
        let options = RegistryOptions { limits, ..RegistryOptions::default() };
        let known = fetch(&channel, None, &options).await.unwrap().unwrap();
        assert_eq!(known.listing.versions.keys().collect::<Vec<_>>(), ["v1"]);
        assert!(fetch(&channel, Some(&known), &options).await.unwrap().is_none());
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let problem = fetch(&channel, Some(&known), &options).await.unwrap_err();
        assert_eq!(
            (problem.reason.as_str(), problem.passing),
            ("RegistryUnreachable", true),
            "{}",
            problem.message
        );
    }
}

//! The places where a registry's content can be had, in the order in which they are asked: its mirrors, then itself.

use evenkeel_crds::managed_os_image::{Mirror, Pull};
use oci_spec::distribution::Reference;
use reqwest::Url;

use crate::{RegistryError, digest};

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https://HOST/v2`.
    api: String,
    /// What a mirror puts before the repository's name: nothing, or a path with a slash at its end.
    prefix: String,
    /// `HOST` or `HOST:PORT`: credentials are looked up by it.
    pub host: String,
    /// Whether what it says of tags is believed.
    resolves: bool,
    /// The registry that it stands for, if it is a mirror.
    mirror_of: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// A manifest or an index, by tag or digest.
    Manifest(&'a str),
    /// A blob, by digest.
    Blob(&'a str),
    /// The list of what refers to a digest.
    Referrers(&'a str),
}

impl<'a> Content<'a> {
    /// The digest that the bytes must have, whoever gives them.
    pub(crate) fn digest(self) -> Option<&'a str> {
        match self {
            Self::Blob(digest) => Some(digest),
            Self::Manifest(name) => digest::is_sha256(name).then_some(name),
            Self::Referrers(_) => None,
        }
    }
}

/// All places for what `reference` names.
pub(crate) fn all(pull: &Pull, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
    let mirrors = pull.mirrors.iter().filter(|mirror| stands_for(mirror, reference.registry()));
    let mut all = mirrors.map(|mirror| Endpoint::mirror(mirror, reference)).collect::<Result<Vec<_>, _>>()?;
    all.push(Endpoint::origin(reference, pull.plain_http));
    Ok(all)
}

fn stands_for(mirror: &Mirror, registry: &str) -> bool {
    mirror.registry == "*" || mirror.registry == registry
}

impl Endpoint {
    fn origin(reference: &Reference, plain_http: bool) -> Self {
        let scheme = if plain_http { "http" } else { "https" };
        Self {
            api: format!("{scheme}://{}/v2", reference.resolve_registry()),
            prefix: String::new(),
            host: reference.registry().to_owned(),
            resolves: true,
            mirror_of: None,
        }
    }

    fn mirror(mirror: &Mirror, reference: &Reference) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Mirror { url: mirror.url.clone() };
        let url = Url::parse(&mirror.url).map_err(|_| wrong())?;
        let (scheme, host) = (url.scheme(), url.host_str().ok_or_else(wrong)?);
        let bare = url.username().is_empty() && url.password().is_none();
        if !matches!(scheme, "http" | "https") || !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = url.path().trim_matches('/');
        Ok(Self {
            api: format!("{scheme}://{host}/v2"),
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
            host,
            resolves: mirror.resolve,
            mirror_of: Some(reference.registry().to_owned()),
        })
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.mirror_of.is_some()
    }

    /// Whether it may be asked for this: what cannot be checked by a digest only from those that are trusted with it.
    pub(crate) fn may_serve(&self, content: Content<'_>) -> bool {
        self.resolves || content.digest().is_some()
    }

    /// The repository's name there.
    pub(crate) fn repository(&self, reference: &Reference) -> String {
        format!("{}{}", self.prefix, reference.repository())
    }

    /// The repository with its host, for messages.
    pub(crate) fn place(&self, reference: &Reference) -> String {
        format!("{}/{}", self.host, self.repository(reference))
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.api.starts_with("https:") { "https" } else { "http" }
    }

    /// Whether an answer's address is here.
    pub(crate) fn is_at(&self, url: &Url) -> bool {
        let own = Url::parse(&self.api);
        own.is_ok_and(|own| own.origin() == url.origin())
    }

    /// Where something is. Mirrors of many registries are told which one is meant, in the way that containerd began
    /// (`ns`).
    pub(crate) fn url(&self, reference: &Reference, content: Content<'_>) -> String {
        let (kind, name) = match content {
            Content::Manifest(name) => ("manifests", name),
            Content::Blob(digest) => ("blobs", digest),
            Content::Referrers(digest) => ("referrers", digest),
        };
        let url = format!("{}/{}/{kind}/{name}", self.api, self.repository(reference));
        match &self.mirror_of {
            Some(registry) => format!("{url}?ns={registry}"),
            None => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(registry: &str, url: &str) -> Mirror {
        Mirror { registry: registry.into(), url: url.into(), resolve: false }
    }

    fn urls(pull: &Pull, image: &str) -> Vec<String> {
        let reference: Reference = image.parse().unwrap();
        let content = Content::Manifest("1");
        all(pull, &reference).unwrap().iter().map(|endpoint| endpoint.url(&reference, content)).collect()
    }

    #[test]
    fn mirrors_come_first_in_their_order_and_say_for_whom_they_stand() {
        let pull = Pull {
            plain_http: true,
            mirrors: vec![
                mirror("docker.io", "https://harbor.example/hub/"),
                mirror("*", "http://127.0.0.1:30020"),
                mirror("r.example:5000", "https://other.example"),
            ],
            ..Pull::default()
        };
        assert_eq!(
            urls(&pull, "docker.io/library/os"),
            [
                "https://harbor.example/v2/hub/library/os/manifests/1?ns=docker.io",
                "http://127.0.0.1:30020/v2/library/os/manifests/1?ns=docker.io",
                "http://index.docker.io/v2/library/os/manifests/1",
            ]
        );
        assert_eq!(
            urls(&pull, "r.example:5000/os"),
            [
                "http://127.0.0.1:30020/v2/os/manifests/1?ns=r.example:5000",
                "https://other.example/v2/os/manifests/1?ns=r.example:5000",
                "http://r.example:5000/v2/os/manifests/1",
            ]
        );
    }

    #[test]
    fn what_is_no_mirror() {
        let reference: Reference = "r.example/os".parse().unwrap();
        for url in [
            "mirror.example",
            "ftp://mirror.example",
            "https://u:p@mirror.example",
            "https://m.example/?a=b",
            "",
        ] {
            let pull = Pull { mirrors: vec![mirror("*", url)], ..Pull::default() };
            let error = all(&pull, &reference).unwrap_err();
            assert_eq!((error.reason(), error.retryable()), ("InvalidMirror", false), "{url}: {error}");
        }
    }

    #[test]
    fn only_what_has_a_digest_is_taken_from_anybody() {
        let reference: Reference = "r.example/os".parse().unwrap();
        let pull = Pull { mirrors: vec![mirror("*", "https://m.example")], ..Pull::default() };
        let all = all(&pull, &reference).unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (content, by_mirror) in [
            (Content::Manifest("latest"), false),
            (Content::Manifest(&digest), true),
            (Content::Blob(&digest), true),
            (Content::Referrers(&digest), false),
        ] {
            assert_eq!(all[0].may_serve(content), by_mirror, "{content:?}");
            assert!(all[1].may_serve(content));
        }
    }
}

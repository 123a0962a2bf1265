//! The places where a registry's content can be had, in the order in which they are asked: its mirrors, then itself.

use evenkeel_crds::managed_os_image::Mirror;
use oci_spec::distribution::Reference;
use reqwest::Url;

use crate::{
    RegistryError, RegistryOptions, digest,
    hosts::{self, Hosts},
    tls::Tls,
};

/// Tags that are asked for at once: as many as the registries of clouds give.
const TAGS_PER_PAGE: u32 = 1000;

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
    /// What TLS needs there.
    pub tls: Tls,
}

/// The parts of a place's address that matter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub scheme: &'static str,
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// Without slashes at its ends.
    pub path: String,
}

impl Address {
    /// Reads `SCHEME://HOST:PORT/PATH`, with nothing more in it.
    pub(crate) fn parse(text: &str) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Mirror { url: text.to_owned() };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let scheme = match url.scheme() {
            "https" => "https",
            "http" => "http",
            _ => return Err(wrong()),
        };
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        let host = url.host_str().ok_or_else(wrong)?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { scheme, host, path: url.path().trim_matches('/').to_owned() })
    }
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
    /// The list of the repository's tags.
    Tags,
    /// What follows in a list, by its whole address. It means something only where it comes from.
    Page(&'a str),
}

impl<'a> Content<'a> {
    /// The digest that the bytes must have, whoever gives them.
    pub(crate) fn digest(self) -> Option<&'a str> {
        match self {
            Self::Blob(digest) => Some(digest),
            Self::Manifest(name) => digest::is_sha256(name).then_some(name),
            Self::Referrers(_) | Self::Tags | Self::Page(_) => None,
        }
    }
}

/// All places for what `reference` names: the API's mirrors, those of the machine's own files, and the registry.
pub(crate) fn all(options: &RegistryOptions, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
    let registry = reference.registry();
    let mirrors = options.pull.mirrors.iter();
    let mirrors = mirrors.filter(|mirror| mirror.registry == "*" || mirror.registry == registry);
    let mut all = mirrors.map(|mirror| Endpoint::mirror(mirror, registry)).collect::<Result<Vec<_>, _>>()?;
    let hosts = match &options.hosts_dir {
        Some(folder) => hosts::find(folder, registry)?,
        None => Hosts::default(),
    };
    all.extend(hosts.mirrors);
    let origin = || Endpoint { tls: hosts.tls, ..Endpoint::origin(reference, options.pull.plain_http) };
    all.push(hosts.server.unwrap_or_else(origin));
    Ok(all)
}

impl Endpoint {
    /// A place at `SCHEME://HOST`.
    pub(crate) fn new(scheme: &str, address: &str, host: &str) -> Self {
        Self {
            api: format!("{scheme}://{address}/v2"),
            prefix: String::new(),
            host: host.to_owned(),
            resolves: true,
            mirror_of: None,
            tls: Tls::default(),
        }
    }

    fn origin(reference: &Reference, plain_http: bool) -> Self {
        let scheme = if plain_http { "http" } else { "https" };
        Self::new(scheme, reference.resolve_registry(), reference.registry())
    }

    fn mirror(mirror: &Mirror, registry: &str) -> Result<Self, RegistryError> {
        let address = Address::parse(&mirror.url)?;
        let prefix = if address.path.is_empty() { String::new() } else { format!("{}/", address.path) };
        let place = Self::new(address.scheme, &address.host, &address.host);
        Ok(Self { prefix, resolves: mirror.resolve, mirror_of: Some(registry.to_owned()), ..place })
    }

    /// The same place, as a mirror of `registry`.
    pub(crate) fn standing_for(self, registry: &str, resolves: bool) -> Self {
        Self { mirror_of: Some(registry.to_owned()), resolves, ..self }
    }

    /// The same place, with its API at `/PATH`.
    pub(crate) fn with_api_at(mut self, path: &str) -> Self {
        self.api = format!("{}://{}/{path}", self.scheme(), self.host);
        self
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

    /// Where the repository is entered: what opens one door is shown at no other, such as the same without TLS.
    pub(crate) fn door(&self, reference: &Reference) -> String {
        format!("{}/{}", self.api, self.repository(reference))
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
            Content::Tags => ("tags", "list"),
            Content::Page(url) => return url.to_owned(),
        };
        let url = format!("{}/{}/{kind}/{name}", self.api, self.repository(reference));
        let length = matches!(content, Content::Tags).then(|| format!("n={TAGS_PER_PAGE}"));
        let stands_for = self.mirror_of.as_ref().map(|registry| format!("ns={registry}"));
        let query: Vec<String> = length.into_iter().chain(stands_for).collect();
        if query.is_empty() { url } else { format!("{url}?{}", query.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_crds::managed_os_image::Pull;

    use super::*;

    fn all(pull: &Pull, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
        super::all(&RegistryOptions { pull: pull.clone(), ..RegistryOptions::default() }, reference)
    }

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

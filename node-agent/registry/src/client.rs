//! One request to one place, with whatever it wants to know of us; and what its answer means.

use std::time::SystemTime;

use oci_spec::distribution::Reference;
use reqwest::{
    Method, RequestBuilder, Response,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE},
};

use crate::{
    RegistryError, RegistryOptions,
    auth::{Auth, Visit},
    challenge::Challenge,
    endpoint::{Content, Endpoint},
    error,
    http::{self, Http},
    retry_after,
};

/// All kinds of manifests and indexes that we can read, and what signatures are kept in.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// What is read of the words of a registry that refuses.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// What asks registries.
pub(crate) struct Client {
    pub options: RegistryOptions,
    pub http: Http,
    auth: Auth,
}

/// What is wanted of a place.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub reference: &'a Reference,
    pub content: Content<'a>,
    /// First byte that is wanted.
    pub from: u64,
    /// The byte behind the last one that is wanted; absent: all.
    pub before: Option<u64>,
    /// Whether any byte is wanted, and not only the answer's head.
    pub bytes: bool,
}

impl Client {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let http = Http::new(options.clone())?;
        Ok(Self { options, http, auth: Auth::default() })
    }

    /// An answer with status 200, 206 or 416. When the place does not, or no longer, know who we are, it is told.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, ask: Ask<'_>) -> Result<Response, RegistryError> {
        let known = self.auth.known(endpoint, ask.reference);
        let worked_before = known.is_some();
        let mut response = self.send(endpoint, ask, known).await?;
        if response.status() == 403 && worked_before && !is_elsewhere(&response, endpoint) {
            // Some say so of what has run out. Without it they ask, as they did the first time.
            self.auth.forget(endpoint, ask.reference);
            response = self.send(endpoint, ask, None).await?;
        }
        if response.status() != 401 || is_elsewhere(&response, endpoint) {
            return self.judge(endpoint, ask, response).await;
        }
        let challenge = Challenge::find(response.headers());
        self.ask_as_each(endpoint, ask, challenge.as_ref()).await
    }

    /// Meets a challenge in the name of each login in turn, until one is let in.
    async fn ask_as_each(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        challenge: Option<&Challenge>,
    ) -> Result<Response, RegistryError> {
        let visit = self.visit(endpoint, ask.reference);
        let logins = visit.logins()?;
        let mut logins = logins.iter().peekable();
        loop {
            let answer = match self.auth.meet(visit, challenge, logins.next()).await {
                Ok(header) => {
                    let response = self.send(endpoint, ask, Some(header)).await?;
                    self.judge(endpoint, ask, response).await
                }
                Err(error) => Err(error),
            };
            match answer {
                Err(RegistryError::Unauthorized { .. }) if logins.peek().is_some() => {}
                answer => return answer,
            }
        }
    }

    fn visit<'a>(&'a self, endpoint: &'a Endpoint, reference: &'a Reference) -> Visit<'a> {
        Visit { http: &self.http, options: &self.options, endpoint, reference }
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let request = self.request(endpoint, ask, authorization)?;
        let sent = http::send(request).await;
        // A registry that is there may send us to a store that is not: what is to be looked at is that.
        sent.map_err(|(source, sent_to)| match sent_to.filter(|url| !endpoint.is_at(url)) {
            Some(url) if source.is_connect() => error::store_unreachable(&url, &endpoint.host, source),
            _ => self.failed(endpoint, ask.reference, source),
        })
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<RequestBuilder, RegistryError> {
        let client = self.http.follower(&endpoint.tls)?.client;
        let method = if ask.bytes { Method::GET } else { Method::HEAD };
        let mut request = client.request(method, endpoint.url(ask.reference, ask.content));
        if !matches!(ask.content, Content::Blob(_)) {
            request = request.header(ACCEPT, MANIFEST_TYPES);
        }
        match (ask.from, ask.before) {
            (from, Some(before)) => request = request.header(RANGE, format!("bytes={from}-{}", before - 1)),
            (0, None) => {}
            (from, None) => request = request.header(RANGE, format!("bytes={from}-")),
        }
        Ok(match authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        })
    }

    /// What an answer's status means.
    async fn judge(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        response: Response,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        let repository = endpoint.place(ask.reference);
        match status.as_u16() {
            200 | 206 => Ok(response),
            416 if ask.from > 0 || ask.before.is_some() => Ok(response),
            404 => Err(not_found(endpoint, ask)),
            status @ (408 | 429 | 500..) => {
                let retry_after = retry_after::find(response.headers(), SystemTime::now());
                Err(RegistryError::Unavailable { repository, status, retry_after })
            }
            // A signed address of a store has run out: the registry gives a new one.
            status @ (400 | 401 | 403) if is_elsewhere(&response, endpoint) => {
                Err(RegistryError::Unavailable { repository, status, retry_after: None })
            }
            401 | 403 => {
                self.auth.forget(endpoint, ask.reference);
                Err(self.visit(endpoint, ask.reference).unauthorized(status.as_str()))
            }
            _ if is_elsewhere(&response, endpoint) => {
                Err(RegistryError::Refused { repository, answer: format!("{status} from where it sends us") })
            }
            _ => {
                let said = http::read(response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
                let answer = error::beginning(&format!("{status}: {}", String::from_utf8_lossy(&said)));
                Err(RegistryError::Refused { repository, answer })
            }
        }
    }

    /// What it means that no answer came, or not all of one.
    pub(crate) fn failed(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        source: reqwest::Error,
    ) -> RegistryError {
        if source.is_redirect() {
            return RegistryError::Refused {
                repository: endpoint.place(reference),
                answer: error::beginning(&error::innermost(&source)),
            };
        }
        let trusts_nobody = self.http.follower(&endpoint.tls).is_ok_and(|follower| follower.trusts_nobody);
        if trusts_nobody && endpoint.scheme() == "https" && source.is_connect() {
            return RegistryError::NoTrustRoots { registry: endpoint.host.clone() };
        }
        error::unreachable(&endpoint.host, endpoint.scheme(), source)
    }
}

/// A page for people came in place of what was asked for.
pub(crate) fn page(repository: String) -> RegistryError {
    RegistryError::Refused { repository, answer: "200, with a page of text/html".to_owned() }
}

fn not_found(endpoint: &Endpoint, ask: Ask<'_>) -> RegistryError {
    let image = match ask.content {
        Content::Manifest(name) if name.contains(':') => format!("{}@{name}", endpoint.place(ask.reference)),
        Content::Manifest(tag) => format!("{}:{tag}", endpoint.place(ask.reference)),
        Content::Blob(digest) => format!("blob {digest} of {}", endpoint.place(ask.reference)),
        Content::Referrers(digest) => {
            format!("the list of referrers of {}@{digest}", endpoint.place(ask.reference))
        }
        Content::Tags => format!("the list of tags of {}", endpoint.place(ask.reference)),
        Content::Page(url) => format!("the next page of a list of {}, {url}", endpoint.place(ask.reference)),
    };
    RegistryError::NotFound { image }
}

/// Whether an answer came from another place than the one that was asked.
fn is_elsewhere(response: &Response, endpoint: &Endpoint) -> bool {
    !endpoint.is_at(response.url())
}

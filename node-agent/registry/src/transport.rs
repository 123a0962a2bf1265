//! Requests to a registry: who we are, patience, and what an answer's status means.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use oci_spec::distribution::Reference;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{
    RegistryError, RegistryOptions,
    credentials::{self, Credentials},
    token::{self, Challenge, TokenError},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in an answer. A slow registry is no error, one that stopped is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is made before its failure is told: with the pauses below this takes under 4 s.
const ATTEMPTS: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// The longest pause that a registry can ask for; whoever asks for more is asked again earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Beginning of an error's text that is shown.
const MESSAGE_BYTES_MAX: usize = 200;

/// One thing of a repository.
pub(crate) struct Request<'a> {
    pub reference: &'a Reference,
    /// Below the repository, such as `manifests/latest`.
    pub path: String,
    pub accept: &'static str,
    /// First byte that is wanted, when it is not the first of all.
    pub from: Option<u64>,
}

pub(crate) struct Transport {
    client: Client,
    options: RegistryOptions,
    /// What to send in `Authorization`, by registry and repository.
    known: Mutex<BTreeMap<(String, String), HeaderValue>>,
}

impl Transport {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(IDLE_TIMEOUT)
                .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        };
        let client = match builder().build() {
            // Without TLS nothing needs to be trusted.
            Err(_) if options.plain_http => builder().tls_certs_only([]).build(),
            other => other,
        };
        Ok(Self { client: client.map_err(RegistryError::Client)?, options, known: Mutex::default() })
    }

    /// Makes a request, again if that may help.
    pub(crate) async fn get(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            match self.get_once(request).await {
                Err(error) if error.transient() && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "asking the registry again");
                    pause(attempt, error.retry_after()).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Makes a request; again only to show who we are.
    pub(crate) async fn get_once(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let mut answered = false;
        loop {
            let response = self.send(request).await?;
            if response.status() == StatusCode::UNAUTHORIZED && !answered {
                self.authenticate(request.reference, response.headers()).await?;
                answered = true;
                continue;
            }
            return self.judge(request, response).await;
        }
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let Request { reference, path, accept, from } = request;
        let (registry, repository) = (reference.resolve_registry(), reference.repository());
        let url = format!("{}://{registry}/v2/{repository}/{path}", self.scheme());
        let mut builder = self.client.get(url).header(ACCEPT, *accept);
        if let Some(from) = from {
            builder = builder.header(RANGE, format!("bytes={from}-"));
        }
        // The HTTP library leaves this header out when it is sent to another host.
        if let Some(value) = self.known().get(&key(reference)) {
            builder = builder.header(AUTHORIZATION, value);
        }
        builder.send().await.map_err(|source| self.unreachable(reference, source))
    }

    async fn authenticate(&self, reference: &Reference, headers: &HeaderMap) -> Result<(), RegistryError> {
        let credentials = self.credentials(reference)?;
        let refused = |found: String| self.unauthorized(reference, credentials.as_ref(), found);
        let challenge = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .find_map(|header| Challenge::parse(header.to_str().ok()?))
            .ok_or_else(|| refused("401, without a way to log in that we know".to_owned()))?;
        let value = match challenge {
            Challenge::Basic => match &credentials {
                Some(Credentials::Password { username, password }) => {
                    http_auth::basic::encode_credentials(username, password)
                }
                _ => return Err(refused("401, and there is no password for it".to_owned())),
            },
            Challenge::Bearer { realm, service, scope } => {
                if !self.options.plain_http && !realm.starts_with("https://") {
                    return Err(refused(format!("its token server {realm} does not use TLS")));
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", reference.repository()));
                let token =
                    token::fetch(&self.client, &realm, service.as_deref(), &scope, credentials.as_ref());
                let token = token.await.map_err(|error| match error {
                    TokenError::Unreachable(source) => self.unreachable(reference, source),
                    TokenError::Unavailable(status) => unavailable(reference, status, None),
                    TokenError::Refused(found) => refused(found),
                })?;
                format!("Bearer {token}")
            }
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| refused("it wants credentials that cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        self.known().insert(key(reference), value);
        Ok(())
    }

    async fn judge(&self, request: &Request<'_>, response: Response) -> Result<Response, RegistryError> {
        let status = response.status();
        let reference = request.reference;
        let registry = reference.resolve_registry();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
        {
            return Ok(response);
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(unavailable(reference, status, retry_after(response.headers())));
        }
        // A signed address of a store that runs out: the registry gives a new one.
        let elsewhere = response.url().host_str() != registry.split(':').next();
        if elsewhere && matches!(status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
            return Err(unavailable(reference, status, None));
        }
        match status {
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { image: reference.whole() }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.known().remove(&key(reference));
                let credentials = self.credentials(reference)?;
                Err(self.unauthorized(reference, credentials.as_ref(), status.to_string()))
            }
            _ => Err(RegistryError::Refused {
                registry: registry.to_owned(),
                repository: reference.repository().to_owned(),
                status,
                message: beginning(response).await,
            }),
        }
    }

    fn credentials(&self, reference: &Reference) -> Result<Option<Credentials>, RegistryError> {
        let Some(path) = &self.options.docker_config else { return Ok(None) };
        credentials::find(path, reference.registry(), reference.repository())
    }

    fn unauthorized(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        found: String,
    ) -> RegistryError {
        let remedy = match (&self.options.docker_config, credentials) {
            (Some(path), Some(_)) => {
                format!("check the user name and the password in {}", path.display())
            }
            (Some(path), None) => format!("{} has no credentials for it; add them", path.display()),
            (None, _) => "give credentials for it in a Docker config.json".to_owned(),
        };
        let (registry, repository) = key(reference);
        RegistryError::Unauthorized { registry, repository, found, remedy }
    }

    pub(crate) fn unreachable(&self, reference: &Reference, source: reqwest::Error) -> RegistryError {
        let registry = reference.resolve_registry().to_owned();
        RegistryError::Unreachable { registry, scheme: self.scheme(), source: source.without_url() }
    }

    fn scheme(&self) -> &'static str {
        if self.options.plain_http { "http" } else { "https" }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), HeaderValue>> {
        // Each change is one insertion, so that a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits before attempt number `attempt` + 1: twice as long each time, not in step with the other nodes.
pub(crate) async fn pause(attempt: u32, asked: Option<Duration>) {
    let doubled = PAUSE_MIN.saturating_mul(1 << (attempt - 1).min(10)).min(PAUSE_MAX);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let jitter = doubled / 4 * (clock.subsec_micros() % 1000) / 1000;
    tokio::time::sleep(doubled.max(asked.unwrap_or_default()) + jitter).await;
}

fn key(reference: &Reference) -> (String, String) {
    (reference.resolve_registry().to_owned(), reference.repository().to_owned())
}

fn unavailable(reference: &Reference, status: StatusCode, retry_after: Option<Duration>) -> RegistryError {
    let (registry, repository) = key(reference);
    RegistryError::Unavailable { registry, repository, status, retry_after }
}

/// Seconds only: a date would need a clock that is right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

async fn beginning(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < MESSAGE_BYTES_MAX {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        body.extend_from_slice(&chunk);
    }
    body.truncate(MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ")
}

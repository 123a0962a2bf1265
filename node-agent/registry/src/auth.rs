//! Who we are, as each registry wants to be told: a password with each request, or a token that is fetched for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use reqwest::{RequestBuilder, StatusCode, Url, header::HeaderValue};
use serde::Deserialize;

use crate::{
    RegistryError, RegistryOptions,
    challenge::Challenge,
    credentials::{self, Login},
    endpoint::Endpoint,
    error,
    http::{self, Http, ReadError},
    retry_after,
};

/// Tokens that hold many groups of a user have some ten thousand bytes.
const TOKEN_BYTES_MAX: usize = 1 << 20;
/// How we call ourselves to token servers that want to know.
const CLIENT_ID: &str = "evenkeel";

/// What each repository of each host gets as `Authorization`. Kept until it is refused: that is when tokens have run
/// out and when passwords were changed, whatever was said of it before and whatever the clock says.
#[derive(Default)]
pub(crate) struct Auth(Mutex<BTreeMap<String, HeaderValue>>);

/// A token server's answer. Both names are in use.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    /// What a place is known to take.
    pub(crate) fn known(&self, endpoint: &Endpoint, reference: &Reference) -> Option<HeaderValue> {
        self.all().get(&endpoint.place(reference)).cloned()
    }

    /// It was refused.
    pub(crate) fn forget(&self, endpoint: &Endpoint, reference: &Reference) {
        self.all().remove(&endpoint.place(reference));
    }

    /// Meets what a place wants, with credentials as they are now.
    pub(crate) async fn meet(
        &self,
        http: &Http,
        options: &RegistryOptions,
        (endpoint, reference): (&Endpoint, &Reference),
        challenge: Option<Challenge>,
    ) -> Result<HeaderValue, RegistryError> {
        let refused = |found: &str| unauthorized(options, endpoint, reference, found);
        let login = find(options, endpoint, reference)?;
        let header = match (challenge, login) {
            // Somebody else got it from the token server.
            (_, Some(Login::Token(token))) => format!("Bearer {token}"),
            (Some(Challenge::Basic), Some(Login::Password { user, password })) => basic(&user, &password),
            (Some(Challenge::Basic), Some(Login::Identity(_))) => {
                return Err(refused("401; it wants a password, and there is an identity token"));
            }
            (Some(Challenge::Basic), None) => return Err(refused("401")),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository(reference)));
                let request = request(http, endpoint, &realm, (service, scope), login.as_ref());
                let request =
                    request.ok_or_else(|| refused("401; its token server has no address to trust"))?;
                format!("Bearer {}", fetch(request, &realm, refused).await?)
            }
            (None, _) => return Err(refused("401, and not how to log in")),
        };
        let mut header = HeaderValue::try_from(header)
            .map_err(|_| refused("401; its token server gives no usable token"))?;
        header.set_sensitive(true);
        self.all().insert(endpoint.place(reference), header.clone());
        Ok(header)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, HeaderValue>> {
        // Each change is one insertion or removal, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request for a token; `None` when its address is none, or would carry a secret in clear.
fn request(
    http: &Http,
    endpoint: &Endpoint,
    realm: &str,
    (service, scope): (Option<String>, String),
    login: Option<&Login>,
) -> Option<RequestBuilder> {
    let mut url = Url::parse(realm).ok()?;
    if url.scheme() != "https" && (url.scheme() != "http" || endpoint.scheme() != "http") {
        return None;
    }
    let mut pairs = vec![("scope", scope)];
    pairs.extend(service.map(|service| ("service", service)));
    if let Some(Login::Identity(token)) = login {
        // RFC 6749, section 6, as the distribution project's "OAuth2 token authentication" has it.
        pairs.extend([
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("refresh_token", token.clone()),
        ]);
        return Some(http.stay.post(url).form(&pairs));
    }
    url.query_pairs_mut().extend_pairs(&pairs);
    let request = http.follow.get(url);
    Some(match login {
        Some(Login::Password { user, password }) => request.basic_auth(user, Some(password)),
        _ => request,
    })
}

async fn fetch(
    request: RequestBuilder,
    realm: &str,
    refused: impl Fn(&str) -> RegistryError,
) -> Result<String, RegistryError> {
    let host = Url::parse(realm).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let away = |source: reqwest::Error| error::unreachable(&host, "https", source);
    let response = request.send().await.map_err(away)?;
    let status = response.status();
    if matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || status.is_server_error()
    {
        let retry_after = retry_after::find(response.headers(), SystemTime::now());
        return Err(RegistryError::Unavailable { repository: host, status: status.as_u16(), retry_after });
    }
    let body = match http::read(response, TOKEN_BYTES_MAX).await {
        Ok(body) => body,
        Err(ReadError::Network(source)) => return Err(away(source)),
        Err(ReadError::TooLarge) => return Err(refused("401; its token server says more than a token")),
    };
    if !status.is_success() {
        let said = error::beginning(&String::from_utf8_lossy(&body));
        return Err(refused(&format!("401; its token server answers {status}: {said}")));
    }
    let token: Option<Token> = serde_json::from_slice(&body).ok();
    let token =
        token.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
    token.ok_or_else(|| refused("401; its token server gives no token"))
}

/// The credentials for a place.
fn find(
    options: &RegistryOptions,
    endpoint: &Endpoint,
    reference: &Reference,
) -> Result<Option<Login>, RegistryError> {
    let Some(path) = &options.docker_config else { return Ok(None) };
    credentials::find(path, &endpoint.host, &endpoint.repository(reference))
}

/// The refusal of a place, with what can be done about it.
pub(crate) fn unauthorized(
    options: &RegistryOptions,
    endpoint: &Endpoint,
    reference: &Reference,
    found: &str,
) -> RegistryError {
    let remedy = match (&options.docker_config, find(options, endpoint, reference)) {
        (_, Err(error)) => return error,
        (Some(path), Ok(Some(_))) => format!("check the credentials for it in {}", path.display()),
        (Some(path), Ok(None)) => format!("{} has no credentials for it; add them", path.display()),
        (None, _) => "give credentials for it in a Docker config.json".to_owned(),
    };
    RegistryError::Unauthorized { repository: endpoint.place(reference), found: found.to_owned(), remedy }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

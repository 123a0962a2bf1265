//! Who we are, as each registry wants to be told: a password with each request, or a token that is fetched for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use reqwest::{RequestBuilder, Url, header::HeaderValue};
use serde::Deserialize;

use crate::{
    RegistryError, RegistryOptions,
    challenge::{Challenge, TokenServer},
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

/// Somebody who is at the door of a repository.
#[derive(Clone, Copy)]
pub(crate) struct Visit<'a> {
    pub http: &'a Http,
    pub options: &'a RegistryOptions,
    pub endpoint: &'a Endpoint,
    pub reference: &'a Reference,
}

impl Auth {
    /// What a place is known to take.
    pub(crate) fn known(&self, endpoint: &Endpoint, reference: &Reference) -> Option<HeaderValue> {
        self.all().get(&endpoint.door(reference)).cloned()
    }

    /// It was refused.
    pub(crate) fn forget(&self, endpoint: &Endpoint, reference: &Reference) {
        self.all().remove(&endpoint.door(reference));
    }

    /// Meets what a place wants, in the name of one login or of nobody.
    pub(crate) async fn meet(
        &self,
        visit: Visit<'_>,
        challenge: Option<&Challenge>,
        login: Option<&Login>,
    ) -> Result<HeaderValue, RegistryError> {
        let header = match (challenge, login) {
            // Somebody else got it from the token server.
            (_, Some(Login::Token(token))) => format!("Bearer {token}"),
            (Some(Challenge::Basic), Some(Login::Password { user, password })) => basic(user, password),
            (Some(Challenge::Basic), Some(Login::Identity(_))) => {
                return Err(visit.unauthorized("401; it wants a password, and there is an identity token"));
            }
            (Some(Challenge::Basic), None) => return Err(visit.unauthorized("401")),
            (Some(Challenge::Bearer(server)), login) => {
                format!("Bearer {}", visit.token(server, login).await?)
            }
            (None, _) => return Err(visit.unauthorized("401, and not how to log in")),
        };
        let mut header = HeaderValue::try_from(header)
            .map_err(|_| visit.unauthorized("401; its token server gives no usable token"))?;
        header.set_sensitive(true);
        self.all().insert(visit.endpoint.door(visit.reference), header.clone());
        Ok(header)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, HeaderValue>> {
        // Each change is one insertion or removal, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit<'_> {
    /// The refusal of the place, with what can be done about it.
    pub(crate) fn unauthorized(&self, found: &str) -> RegistryError {
        let logins = match self.logins() {
            Ok(logins) => logins,
            Err(error) => return error,
        };
        let remedy = match (&self.options.docker_config, logins.as_slice()) {
            (Some(path), []) => format!("{} has no credentials for it; add them", path.display()),
            (Some(path), [_]) => format!("check the credentials for it in {}", path.display()),
            (Some(path), all) => {
                format!("check the {} credentials in {} that match it", all.len(), path.display())
            }
            (None, _) => "give credentials for it in a Docker config.json".to_owned(),
        };
        let repository = self.endpoint.place(self.reference);
        RegistryError::Unauthorized { repository, found: found.to_owned(), remedy }
    }

    /// Those whom we can be there, as the file says now.
    pub(crate) fn logins(&self) -> Result<Vec<Login>, RegistryError> {
        let Some(path) = &self.options.docker_config else { return Ok(Vec::new()) };
        credentials::find(path, &self.endpoint.host, &self.endpoint.repository(self.reference))
    }

    async fn token(&self, server: &TokenServer, login: Option<&Login>) -> Result<String, RegistryError> {
        let Some(url) = self.address(&server.realm) else {
            return Err(self.unauthorized("401; its token server has no address to trust"));
        };
        let (host, scheme) = (url.host_str().unwrap_or_default().to_owned(), self.endpoint.scheme());
        let away = |source| error::unreachable(&host, scheme, source);
        let response = self.request(url, server, login)?.send().await.map_err(away)?;
        let status = response.status();
        if matches!(status.as_u16(), 408 | 429 | 500..) {
            let retry_after = retry_after::find(response.headers(), SystemTime::now());
            return Err(RegistryError::Unavailable {
                repository: host,
                status: status.as_u16(),
                retry_after,
            });
        }
        let body = match http::read(response, TOKEN_BYTES_MAX).await {
            Ok(body) => body,
            Err(ReadError::Network(source)) => return Err(away(source)),
            Err(ReadError::TooLarge) => {
                return Err(self.unauthorized("401; its token server says more than a token"));
            }
        };
        if !status.is_success() {
            let said = error::beginning(&String::from_utf8_lossy(&body));
            return Err(self.unauthorized(&format!("401; its token server answers {status}: {said}")));
        }
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.filter(|token| !token.is_empty());
        token.ok_or_else(|| self.unauthorized("401; its token server gives no token"))
    }

    /// The token server's address; `None` when it is none, or what is sent there would be sent in clear.
    fn address(&self, realm: &str) -> Option<Url> {
        let url = Url::parse(realm).ok()?;
        let as_clear_as_the_registry = url.scheme() == "http" && self.endpoint.scheme() == "http";
        (url.scheme() == "https" || as_clear_as_the_registry).then_some(url)
    }

    fn request(
        &self,
        mut url: Url,
        server: &TokenServer,
        login: Option<&Login>,
    ) -> Result<RequestBuilder, RegistryError> {
        let own_scope = || format!("repository:{}:pull", self.endpoint.repository(self.reference));
        let mut pairs = vec![("scope", server.scope.clone().unwrap_or_else(own_scope))];
        pairs.extend(server.service.clone().map(|service| ("service", service)));
        if let Some(Login::Identity(token)) = login {
            // RFC 6749, section 6, as the distribution project's "OAuth2 token authentication" has it.
            pairs.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", CLIENT_ID.to_owned()),
                ("refresh_token", token.clone()),
            ]);
            return Ok(self.http.steady(&self.endpoint.tls)?.post(url).form(&pairs));
        }
        url.query_pairs_mut().extend_pairs(&pairs);
        let request = self.http.follower(&self.endpoint.tls)?.client.get(url);
        Ok(match login {
            Some(Login::Password { user, password }) => request.basic_auth(user, Some(password)),
            _ => request,
        })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

//! How a registry wants to be shown who we are: its challenge, and the answer to it.

use reqwest::{Client, StatusCode};
use serde::Deserialize;

use crate::credentials::Credentials;

/// A token is a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CLIENT_ID: &str = "evenkeel";

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Why there is no token.
pub(crate) enum TokenError {
    /// The token server could not be reached.
    Unreachable(reqwest::Error),
    /// It cannot serve now.
    Unavailable(StatusCode),
    /// It said no, or made no sense.
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "access_token")]
    token: Option<String>,
}

impl Challenge {
    /// Reads a `WWW-Authenticate` header; the first challenge that we can answer.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let challenges = http_auth::parse_challenges(header).ok()?;
        challenges.iter().find_map(|challenge| {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                return Some(Self::Basic);
            }
            if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                return None;
            }
            let realm = parameter("realm")?;
            Some(Self::Bearer { realm, service: parameter("service"), scope: parameter("scope") })
        })
    }
}

/// Fetches a token for `scope` from `realm`.
pub(crate) async fn fetch(
    client: &Client,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Result<String, TokenError> {
    let mut fields = vec![("scope", scope)];
    fields.extend(service.map(|service| ("service", service)));
    let request = match credentials {
        Some(Credentials::Identity(token)) => {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", CLIENT_ID)];
            fields.extend(grant);
            client.post(realm).form(&fields)
        }
        Some(Credentials::Password { username, password }) => {
            client.get(realm).query(&fields).basic_auth(username, Some(password))
        }
        None => client.get(realm).query(&fields),
    };
    let mut response = request.send().await.map_err(TokenError::Unreachable)?;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(TokenError::Unavailable(status));
    }
    if !status.is_success() {
        return Err(TokenError::Refused(format!("its token server answered {status}")));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(TokenError::Unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(TokenError::Refused("its token server answered more than 1 MiB".to_owned()));
        }
    }
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    answer
        .and_then(|answer| answer.token)
        .ok_or_else(|| TokenError::Refused("its token server answered without a token".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_as_registries_write_them() {
        let bearer =
            r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("r.example".into()),
            scope: Some("repository:a/b:pull".into()),
        };
        assert_eq!(Challenge::parse(bearer), Some(expected));
        assert_eq!(Challenge::parse(r#"Basic realm="r""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }
}

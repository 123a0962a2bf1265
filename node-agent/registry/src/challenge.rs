//! How a registry wants to be told who we are: the header `WWW-Authenticate` of its 401.

use http_auth::ChallengeRef;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request (RFC 7617).
    Basic,
    /// A token from a server of its choice, in the way of the distribution project ("Token Authentication").
    Bearer(TokenServer),
}

/// Who gives tokens for a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenServer {
    /// Its address.
    pub realm: String,
    /// What it calls the registry.
    pub service: Option<String>,
    /// What the token is to allow; absent where the registry leaves it to us.
    pub scope: Option<String>,
}

impl Challenge {
    /// The best of what is offered that we can do.
    pub(crate) fn find(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Some(challenges) =
                value.to_str().ok().and_then(|text| http_auth::parse_challenges(text).ok())
            else {
                continue;
            };
            for challenge in challenges {
                if let Some(bearer) = Self::bearer(&challenge) {
                    return Some(bearer);
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }

    fn bearer(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |name: &str| {
            let mut parameters = challenge.params.iter();
            let found = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
        };
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (service, scope) = (parameter("service"), parameter("scope"));
        Some(Self::Bearer(TokenServer { realm: parameter("realm")?, service, scope }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[&str]) -> Option<Challenge> {
        Challenge::find(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect())
    }

    #[test]
    fn a_token_is_preferred_and_what_is_odd_is_passed_over() {
        let bearer = |service: Option<&str>, scope: Option<&str>| {
            let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
            Some(Challenge::Bearer(TokenServer { realm: "https://t.example/token".into(), service, scope }))
        };
        let hub = r#"Bearer realm="https://t.example/token",service="r",scope="repository:a/b:pull,push""#;
        assert_eq!(found(&[hub]), bearer(Some("r"), Some("repository:a/b:pull,push")));
        assert_eq!(
            found(&["basic realm=\"r\"", "bearer realm=\"https://t.example/token\""]),
            bearer(None, None)
        );
        let both = r#"Basic realm="r", Bearer realm="https://t.example/token", service="""#;
        assert_eq!(found(&[both]), bearer(None, None));
        assert_eq!(found(&["Basic realm=\"r\""]), Some(Challenge::Basic));
        assert_eq!(found(&["Negotiate", "Basic"]), Some(Challenge::Basic));
        for nothing in [&[][..], &["Bearer service=\"r\""], &["\"\"\""], &["Digest realm=\"r\",nonce=\"n\""]]
        {
            assert_eq!(found(nothing), None, "{nothing:?}");
        }
    }
}

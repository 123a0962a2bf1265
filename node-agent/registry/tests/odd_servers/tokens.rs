//! Token servers, of all kinds.

use std::{fs, sync::Arc};

use evenkeel_registry::{Registry, RegistryError, RegistryOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fetch_with, layer, layer_path, one_image, options,
    server::{Answer, Request, Server},
};

/// A registry that lets in whoever has the token of this number or a later one; requests are counted by path.
async fn registry(realm: &str, wanted: impl Fn(&Request, usize) -> usize + Send + Sync + 'static) -> Server {
    let images = one_image();
    let challenge = format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:os:pull\"");
    Server::start(move |request, number| {
        let token = request.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer t"));
        match token.and_then(|token| token.parse::<usize>().ok()) {
            Some(token) if token >= wanted(request, number) => match request {
                _ if request.path == layer_path() && request.from == 0 => images.answer(request).cut(100_000),
                _ => images.answer(request),
            },
            _ => Answer::new(401, "").header("WWW-Authenticate", &challenge),
        }
    })
    .await
}

/// Gives the tokens t0, t1, … under the name `field`.
async fn token_server(field: &'static str) -> Server {
    Server::start(move |_, number| Answer::new(200, json!({ field: format!("t{number}") }).to_string())).await
}

fn realm(tokens: &Server) -> String {
    format!("http://{}/token", tokens.address)
}

/// Options with this entry for every registry in the Docker configuration.
fn with_login(server: &Server, login: &Value) -> (TempDir, RegistryOptions) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    fs::write(&config, json!({ "auths": { &server.address: login } }).to_string()).unwrap();
    (folder, RegistryOptions { docker_config: Some(config), ..options() })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all() {
    for field in ["token", "access_token"] {
        let tokens = token_server(field).await;
        let server = registry(&realm(&tokens), |_, _| 0).await;
        assert_eq!(fetch_with(options(), &server).await.unwrap(), layer());
        let asked = tokens.all();
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].method.as_str(), &asked[0].authorization), ("GET", &None));
        assert_eq!(asked[0].query, "scope=repository%3Aos%3Apull&service=the+registry");
    }
}

#[tokio::test]
async fn a_token_that_runs_out_in_the_middle_of_a_layer_is_renewed() {
    let tokens = token_server("token").await;
    // The layer breaks, and what is missing needs a new token.
    let server = registry(&realm(&tokens), |request, _| usize::from(request.from > 0)).await;
    assert_eq!(fetch_with(options(), &server).await.unwrap(), layer());
    let asked: Vec<usize> = server.seen(&layer_path()).iter().map(|request| request.from).collect();
    assert_eq!((asked, tokens.all().len()), (vec![0, 100_000, 100_000], 2));
}

#[tokio::test]
async fn a_registry_that_takes_no_token_is_not_asked_for_ever() {
    let tokens = token_server("token").await;
    let server = registry(&realm(&tokens), |_, _| usize::MAX).await;
    let error = fetch_with(options(), &server).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized", "{error}");
    assert_eq!((server.all().len(), tokens.all().len()), (2, 1));
}

#[tokio::test]
async fn an_identity_token_is_exchanged_in_the_body_of_a_request_that_goes_nowhere_else() {
    let tokens = token_server("access_token").await;
    let server = registry(&realm(&tokens), |_, _| 0).await;
    for login in
        [json!({ "identitytoken": "secret/+" }), json!({ "username": "<token>", "password": "secret/+" })]
    {
        let (_folder, options) = with_login(&server, &login);
        assert_eq!(fetch_with(options, &server).await.unwrap(), layer());
        let asked = tokens.all().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.query.as_str(), asked.authorization), ("POST", "", None));
        assert_eq!(
            asked.body,
            "scope=repository%3Aos%3Apull&service=the+registry&grant_type=refresh_token&client_id=evenkeel\
             &refresh_token=secret%2F%2B"
        );
    }
    let thief = token_server("access_token").await;
    let address = thief.address.clone();
    let lure = Server::start(move |_, _| {
        Answer::new(307, "").header("Location", &format!("http://{address}/token"))
    })
    .await;
    let server = registry(&realm(&lure), |_, _| 0).await;
    let (_folder, options) = with_login(&server, &json!({ "identitytoken": "secret" }));
    assert_eq!(fetch_with(options, &server).await.unwrap_err().reason(), "Unauthorized");
    assert!(thief.all().is_empty(), "an identity token is not given to whom the token server names");
}

#[tokio::test]
async fn a_password_is_given_to_the_token_server_and_a_ready_token_to_the_registry() {
    let tokens = token_server("token").await;
    let server = registry(&realm(&tokens), |_, _| 0).await;
    let (_folder, options) = with_login(&server, &json!({ "auth": "dTpw" }));
    fetch_with(options, &server).await.unwrap();
    assert_eq!(tokens.all()[0].authorization.as_deref(), Some("Basic dTpw"));
    assert!(server.all().iter().all(|request| request.authorization.as_deref() != Some("Basic dTpw")));
    let (_folder, options) = with_login(&server, &json!({ "registrytoken": "t7" }));
    fetch_with(options, &server).await.unwrap();
    assert_eq!(tokens.all().len(), 1);
}

/// Token servers that are no good, what that is called, and how often each is asked.
#[tokio::test]
async fn token_servers_that_fail() {
    let large = format!("{{\"token\": \"{}\"}}", "x".repeat(1 << 20));
    for (answer, reason, asked) in [
        (Answer::new(503, ""), "RegistryUnavailable", 4),
        (Answer::new(429, "").header("Retry-After", "1"), "RegistryUnavailable", 4),
        (Answer::new(200, "{}").cut(0).reset(), "RegistryUnreachable", 4),
        (Answer::new(400, "{}"), "Unauthorized", 1),
        (Answer::new(200, "{}"), "Unauthorized", 1),
        (Answer::new(200, r#"{"token":""}"#), "Unauthorized", 1),
        (Answer::new(200, r#"{"token":"line\nbreak"}"#), "Unauthorized", 1),
        (Answer::new(200, "<html>"), "Unauthorized", 1),
        (Answer::new(200, large.clone()), "Unauthorized", 1),
        (Answer::new(200, large.clone()).without_length(), "Unauthorized", 1),
    ] {
        let tokens = Server::start(move |_, _| answer.clone()).await;
        let server = registry(&realm(&tokens), |_, _| 0).await;
        let error = fetch_with(options(), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, true), "{error}");
        assert_eq!(tokens.all().len(), asked, "{error}");
    }
}

#[tokio::test]
async fn a_realm_that_is_no_address_and_a_challenge_that_nobody_can_meet() {
    let challenges = ["Bearer realm=\"/token\"", "Bearer realm=\"file:///etc/passwd\"", "Negotiate", "\""];
    for challenge in challenges {
        let server =
            Server::start(move |_, _| Answer::new(401, "").header("WWW-Authenticate", challenge)).await;
        let error = fetch_with(options(), &server).await.unwrap_err();
        assert_eq!(error.reason(), "Unauthorized", "{challenge}: {error}");
        assert_eq!(server.all().len(), 1);
    }
}

/// Some registries answer 403, and not 401, to what has run out.
#[tokio::test]
async fn a_password_that_ran_out_with_403_is_read_again_in_the_middle_of_a_layer() {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(folder.path().join("config.json"));
    let (images, config_here) = (one_image(), config.clone());
    let write = |path: &std::path::Path, address: &str, user: &str| {
        let auths = json!({ "auths": { address: { "username": user, "password": "p" } } });
        fs::write(path, auths.to_string()).unwrap();
    };
    let server = Server::start(move |request, _| match request.authorization.as_deref() {
        // new:p
        Some("Basic bmV3OnA=") => images.answer(request),
        // old:p
        Some("Basic b2xkOnA=") if request.from == 0 => images.answer(request).cut(100_000),
        Some(_) => {
            let text = fs::read_to_string(&*config_here).unwrap().replace("old", "new");
            fs::write(&*config_here, text).unwrap();
            Answer::new(403, "it has run out")
        }
        None => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    write(&config, &server.address, "old");
    let options = RegistryOptions { docker_config: Some(config.to_path_buf()), ..options() };
    // Documents are smaller than what is cut, and come whole.
    assert_eq!(fetch_with(options, &server).await.unwrap(), layer());
}

#[tokio::test]
async fn a_program_that_has_the_credentials_is_refused_by_name() {
    let server =
        Server::start(|_, _| Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\"")).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    fs::write(&config, json!({ "credHelpers": { &server.address: "ecr-login" } }).to_string()).unwrap();
    let registry = Registry::new(RegistryOptions { docker_config: Some(config), ..options() }).unwrap();
    let error = registry.resolve(&server.image()).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("InvalidCredentials", true));
    let RegistryError::Credentials { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("docker-credential-ecr-login"), "{source}");
}

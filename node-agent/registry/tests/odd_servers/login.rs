//! Who is told who we are.

use std::fs;

use serde_json::json;

use crate::{
    layer, layer_path, machine, one_image, pull, registry,
    server::{Answer, Server},
};

/// A registry whose layers lie in a store with signed addresses, of which the first has run out.
#[tokio::test]
async fn a_store_elsewhere_gets_no_credentials_and_a_second_chance() {
    let store = Server::start(|request, _| match request.path.as_str() {
        "/signed/0" => Answer::new(403, "expired"),
        _ => Answer::new(200, layer()),
    })
    .await;
    let address = store.address.clone();
    let images = one_image();
    let path = layer_path();
    let server = Server::start(move |request, number| match request {
        _ if request.authorization.is_none() => {
            Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\"")
        }
        _ if request.path == path => {
            Answer::new(307, "").header("Location", &format!("http://{address}/signed/{number}"))
        }
        _ => images.answer(request),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let auths = json!({ "auths": { &server.address: { "username": "u", "password": "p" } } });
    fs::write(&config, auths.to_string()).unwrap();
    let registry = registry(Some(config));
    let image = registry.image(&server.image(), &machine()).await.unwrap();
    assert_eq!(pull(&registry, &image).await.unwrap(), layer());
    for path in ["/signed/0", "/signed/1"] {
        let seen = store.seen(path);
        assert!(seen.len() == 1 && seen[0].authorization.is_none(), "{seen:?}");
    }
}

#[tokio::test]
async fn a_password_that_was_renewed_is_used_by_the_same_client() {
    let images = one_image();
    let server = Server::start(move |request, _| match request.authorization.as_deref() {
        // new:pw
        Some("Basic bmV3OnB3") => images.answer(request),
        _ => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let write = |user: &str| {
        let auths = json!({ "auths": { &server.address: { "username": user, "password": "pw" } } });
        fs::write(&config, auths.to_string()).unwrap();
    };
    let registry = registry(Some(config.clone()));
    for (user, opens) in [("old", false), ("new", true)] {
        write(user);
        match registry.resolve(&server.image()).await {
            Ok(_) => assert!(opens),
            Err(error) => assert!(!opens && error.reason() == "Unauthorized", "{error}"),
        }
    }
}

#[tokio::test]
async fn a_token_server_that_refuses_is_quoted() {
    let tokens = Server::start(|_, _| Answer::new(403, "account\n locked")).await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"r\"", tokens.address);
    let server = Server::start(move |_, _| Answer::new(401, "").header("WWW-Authenticate", &challenge)).await;
    let error = registry(None).resolve(&server.image()).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized");
    let text = error.to_string();
    assert!(text.contains("account locked") && text.contains(&server.address), "{text}");
}

/// Of several entries that match, the one that names most is tried first, and the next when that is refused.
#[tokio::test]
async fn the_next_credentials_are_tried_when_the_first_are_refused() {
    for status in [401, 403] {
        let images = one_image();
        let server = Server::start(move |request, _| match request.authorization.as_deref() {
            // all:p
            Some("Basic YWxsOnA=") => images.answer(request),
            None => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
            Some(_) => Answer::new(status, ""),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let user = |name: &str| json!({ "username": name, "password": "p" });
        let write = |all: &str| {
            let auths = json!({ server.repository(): user("os"), &server.address: user(all) });
            fs::write(&config, json!({ "auths": auths }).to_string()).unwrap();
        };
        write("all");
        let registry = registry(Some(config.clone()));
        let image = registry.image(&server.image(), &machine()).await.unwrap();
        assert_eq!(pull(&registry, &image).await.unwrap(), layer());
        // What opened the door is known from then on: nobody, os, all; then all.
        assert_eq!(server.all().len(), 5, "{status}");
        write("nobody");
        let registry = crate::registry(Some(config.clone()));
        let error = registry.resolve(&server.image()).await.unwrap_err();
        assert_eq!(error.reason(), "Unauthorized");
        assert!(error.to_string().contains("check the 2 credentials"), "{error}");
    }
}

/// A token server that knows only the second of two users.
#[tokio::test]
async fn the_next_credentials_are_tried_when_the_token_server_refuses() {
    let tokens = Server::start(|request, _| match request.authorization.as_deref() {
        // all:p
        Some("Basic YWxsOnA=") => Answer::new(200, r#"{"token":"t"}"#),
        _ => Answer::new(401, "who?"),
    })
    .await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    let images = one_image();
    let server = Server::start(move |request, _| match request.authorization.as_deref() {
        Some("Bearer t") => images.answer(request),
        _ => Answer::new(401, "").header("WWW-Authenticate", &challenge),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let user = |name: &str| json!({ "username": name, "password": "p" });
    let auths = json!({ server.repository(): user("os"), &server.address: user("all") });
    fs::write(&config, json!({ "auths": auths }).to_string()).unwrap();
    assert!(registry(Some(config)).resolve(&server.image()).await.is_ok());
    assert_eq!(tokens.all().len(), 2);
}

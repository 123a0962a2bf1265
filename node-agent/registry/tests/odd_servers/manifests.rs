//! From a reference to a manifest.

use evenkeel_registry::Platform;
use serde_json::{Value, json};

use crate::{
    Store, fetch, layer, layer_path, machine, one_image, pull, registry,
    server::{Answer, Server, digest},
};

#[tokio::test]
async fn of_an_index_the_best_entry_is_taken_however_deep_it_is() {
    let entry = |mut entry: Value, platform: Value| {
        entry["platform"] = platform;
        entry
    };
    let (store, v6) = Store::default().image("arm", "v6");
    let (store, v7) = store.image("arm", "v7");
    let (mut store, amd64) = store.image("amd64", "");
    let nested = store.manifest(&json!({ "schemaVersion": 2, "manifests": [
        entry(v6.clone(), json!({ "os": "linux", "architecture": "arm", "variant": "v6" })),
        entry(v7, json!({ "os": "linux", "architecture": "arm", "variant": "v7" })),
    ] }));
    let unknown = json!({ "os": "unknown", "architecture": "unknown" });
    store.manifest(&json!({ "schemaVersion": 2, "manifests": [
        entry(v6, unknown), entry(amd64, json!({ "os": "linux", "architecture": "amd64" })), nested,
    ] }));
    let server = store.serve().await;
    let (registry, image) = (registry(None), server.image());
    let found = registry.image(&image, &machine()).await.unwrap();
    assert_eq!(found.version(), Some("v7"));
    let resolved = registry.resolve(&image).await.unwrap();
    assert_eq!(resolved.digest, found.digest);
    assert_ne!(found.digest, found.manifest_digest);
    assert_eq!(resolved.image, format!("{}/os@{}", server.address, found.digest));
    let other = Platform { architecture: "s390x".into(), variant: None, ..machine() };
    assert_eq!(registry.image(&image, &other).await.unwrap_err().reason(), "WrongArchitecture");
}

#[tokio::test]
async fn manifests_that_are_no_good() {
    let circle = json!({ "schemaVersion": 2, "manifests": [] });
    let both = json!({ "schemaVersion": 2, "manifests": [], "layers": [] });
    for (manifest, word) in [
        (circle.to_string(), "names no image"),
        (both.to_string(), "neither"),
        ("<html>".to_owned(), "expected value"),
        (format!("{{\"layers\": [\"{}\"]}}", "x".repeat(4 << 20)), "4 MiB"),
    ] {
        let mut store = Store::default();
        store.0.insert("/v2/os/manifests/1".into(), manifest.into_bytes());
        let server = store.serve().await;
        let error = registry(None).resolve(&server.image()).await.unwrap_err();
        assert_eq!(error.reason(), "InvalidManifest", "{error}");
        assert!(error.to_string().contains(word) && !error.retryable(), "{error}");
    }
}

/// Only their configurations, or their own entries, tell what entries are that do not say it.
#[tokio::test]
async fn of_entries_that_do_not_say_what_they_are_for_the_one_is_taken_that_fits() {
    let (store, other) = Store::default().image("s390x", "");
    let (mut store, v7) = store.image("arm", "v7");
    let config = b"{}";
    store.0.insert(format!("/v2/os/blobs/{}", digest(config)), config.to_vec());
    let artifact = store.manifest(&json!({
        "schemaVersion": 2, "artifactType": "application/spdx+json", "layers": [],
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(config), "size": 2 },
    }));
    let missing = json!({ "mediaType": "x", "digest": digest(b"pruned"), "size": 6 });
    let nested = store.manifest(&json!({ "schemaVersion": 2, "manifests": [other] }));
    let empty = json!({ "os": "", "architecture": "" });
    let (mut odd, fits) = (v7.clone(), v7);
    odd["platform"] = empty;
    for entries in [
        vec![artifact.clone(), other.clone(), fits.clone()],
        vec![missing.clone(), nested.clone(), odd],
        vec![nested, fits.clone()],
    ] {
        let mut store = store.clone();
        let index = store.manifest(&json!({ "schemaVersion": 2, "manifests": entries }));
        let server = store.serve().await;
        let found = registry(None).image(&server.image(), &machine()).await.unwrap();
        assert_eq!((found.version(), &index["digest"]), (Some("v7"), &found.digest.as_str().into()));
        // Where any image will do, no artifact does.
        let version = registry(None).resolve(&server.image()).await.unwrap().version;
        assert!(version.is_some(), "{entries:?}");
    }
    store.manifest(&json!({ "schemaVersion": 2, "manifests": [other, missing, artifact] }));
    let server = store.serve().await;
    let error = registry(None).image(&server.image(), &machine()).await.unwrap_err();
    assert_eq!(error.reason(), "WrongArchitecture", "{error}");
}

#[tokio::test]
async fn an_artifact_is_told_as_such() {
    let mut store = Store::default();
    let config = br#"{"name":"chart"}"#;
    store.0.insert(format!("/v2/os/blobs/{}", digest(config)), config.to_vec());
    store.manifest(&json!({
        "schemaVersion": 2, "layers": [],
        "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest(config), "size": 16 },
    }));
    let server = store.serve().await;
    let error = registry(None).image(&server.image(), &machine()).await.unwrap_err().to_string();
    assert!(
        error.contains("it is of the type application/vnd.cncf.helm.config.v1+json, and none of an"),
        "{error}"
    );
}

/// As a proxy that wants to be logged in to gives for everything: nothing is wrong with the image.
#[tokio::test]
async fn a_page_for_people_is_not_held_against_the_image() {
    let page = || Answer::new(200, "<html>Log in</html>").header("Content-Type", "text/html; charset=utf-8");
    let store = one_image();
    let pinned = digest(&store.0["/v2/os/manifests/1"]);
    for what in ["/manifests/", "/blobs/", &layer_path()] {
        let (store, what_here) = (store.clone(), what.to_owned());
        let server =
            Server::start(
                move |request, _| {
                    if request.path.contains(&what_here) { page() } else { store.answer(request) }
                },
            )
            .await;
        for image in [server.image(), format!("{}@{pinned}", server.repository())] {
            let registry = registry(None);
            let image = registry.image(&image, &machine()).await;
            let error = match image {
                Ok(image) => pull(&registry, &image).await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.reason(), "RegistryRefused", "{what}: {error}");
            assert!(error.to_string().contains("a page of text/html"), "{error}");
        }
    }
    // What only says so and is what it should be is taken.
    let server =
        Server::start(move |request, _| store.answer(request).header("Content-Type", "text/html")).await;
    assert_eq!(fetch(&server).await.unwrap(), layer());
}

#[tokio::test]
async fn a_pinned_manifest_has_the_pinned_digest() {
    let server = Server::start(|_, _| Answer::new(200, "{}")).await;
    let image = format!("{}/os@{}", server.address, digest(b"another"));
    assert_eq!(registry(None).resolve(&image).await.unwrap_err().reason(), "DigestMismatch");
}

#[tokio::test]
async fn what_a_status_means() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}"#;
    for (status, body, reason, retryable) in [
        (403, denied, "Unauthorized", true),
        (403, "<html>", "Unauthorized", true),
        (401, "", "Unauthorized", true),
        (404, unknown, "ImageNotFound", false),
        (404, "<html>", "ImageNotFound", false),
        (418, "a teapot", "RegistryRefused", false),
        (204, "", "RegistryRefused", false),
    ] {
        let server = Server::start(move |_, _| Answer::new(status, body)).await;
        let error = registry(None).resolve(&server.image()).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, retryable), "{status}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_stays_busy_is_named_in_the_end() {
    for (status, wish, word) in
        [(503, None, "answered 503:"), (429, Some("7"), "429, to be asked again in 7 s")]
    {
        let answer = Answer::new(status, "later");
        let answer = wish.map_or(answer.clone(), |wish| answer.header("Retry-After", wish));
        let server = Server::start(move |_, _| answer.clone()).await;
        let error = registry(None).resolve(&server.image()).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("RegistryUnavailable", true), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(server.seen("/v2/os/manifests/1").len(), 4);
    }
}

/// Answers to the first two questions for each document; the third is answered as it should be.
#[tokio::test]
async fn documents_that_break_off_are_asked_for_again() {
    let whole = Answer::new(200, "{}".repeat(100));
    for (name, odd) in [
        ("reset at once", whole.clone().cut(0).reset()),
        ("reset in the middle", whole.clone().cut(100).reset()),
        ("ended in the middle", whole.clone().cut(100)),
        ("silent at once", whole.clone().cut(0).silent()),
        ("silent in the middle", whole.cut(100).silent()),
        ("busy", Answer::new(429, "").header("Retry-After", "1")),
        ("timed out", Answer::new(408, "")),
        ("broken", Answer::new(500, "")),
        ("cut off in its gateway", Answer::new(502, "<html>")),
    ] {
        let store = one_image();
        let server = Server::start(move |request, number| match number {
            0 | 1 => odd.clone(),
            _ => store.answer(request),
        })
        .await;
        let resolved = registry(None).resolve(&server.image()).await;
        assert_eq!(resolved.unwrap().version.as_deref(), Some("v7"), "{name}");
        assert_eq!(server.seen("/v2/os/manifests/1").len(), 3, "{name}");
    }
}

#[tokio::test]
async fn what_never_ends_is_not_read_to_its_end() {
    for (status, reason) in [(200, "InvalidManifest"), (418, "RegistryRefused")] {
        let server = Server::start(move |_, _| Answer::new(status, "x".repeat(1 << 16)).endless()).await;
        let error = registry(None).resolve(&server.image()).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, false), "{error}");
    }
}

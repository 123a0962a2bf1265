//! Mirrors: what they are asked, what of it is believed, and what becomes of those that fail.

use std::fs;

use evenkeel_crds::managed_os_image::{Mirror, Pull};
use evenkeel_registry::{Registry, RegistryOptions};
use serde_json::json;

use crate::{
    LAYER_BYTES, Store, fetch_with, layer, layer_path, machine, one_image, options, pull,
    server::{Answer, Server, digest},
};

/// Options with mirrors of all registries.
fn mirrored(mirrors: &[&Server]) -> RegistryOptions {
    let mirror = |server: &&Server| Mirror {
        registry: "*".into(),
        url: format!("http://{}", server.address),
        resolve: false,
    };
    let pull = Pull { mirrors: mirrors.iter().map(mirror).collect(), ..options().pull };
    RegistryOptions { pull, ..options() }
}

/// The requests for the layer.
fn asked(server: &Server) -> usize {
    server.seen(&layer_path()).len()
}

#[tokio::test]
async fn what_has_a_digest_comes_from_the_mirror_and_what_a_tag_means_does_not() {
    let (origin, mirror) = (one_image().serve().await, one_image().serve().await);
    let registry = Registry::new(mirrored(&[&mirror])).unwrap();
    let image = registry.image(&origin.image(), &machine()).await.unwrap();
    assert_eq!(pull(&registry, &image).await.unwrap(), layer());
    assert!(mirror.seen("/v2/os/manifests/1").is_empty(), "a mirror is not believed what a tag means");
    assert_eq!((asked(&mirror), asked(&origin)), (1, 0));
    assert_eq!(mirror.seen(&layer_path())[0].query, format!("ns={}", origin.address));
    let pinned = format!("{}@{}", origin.repository(), image.digest);
    registry.image(&pinned, &machine()).await.unwrap();
    assert_eq!(mirror.seen(&format!("/v2/os/manifests/{}", image.digest)).len(), 1);
    // Signatures are found by lists and tags.
    assert!(registry.referrers(&origin.repository(), &image.digest, None).await.unwrap().is_empty());
    assert!(mirror.seen(&format!("/v2/os/referrers/{}", image.digest)).is_empty());
}

#[tokio::test]
async fn a_mirror_that_may_resolve_makes_the_registry_unnecessary() {
    let mirror = one_image().serve().await;
    let mut options = mirrored(&[&mirror]);
    options.pull.mirrors[0].resolve = true;
    let registry = Registry::new(options).unwrap();
    let image = registry.image("registry.invalid/os:1", &machine()).await.unwrap();
    assert_eq!(pull(&registry, &image).await.unwrap(), layer());
    assert_eq!(mirror.seen("/v2/os/manifests/1")[0].query, "ns=registry.invalid");
}

/// Mirrors that fail at the layer, each in its way, and whether they are asked for another layer soon after.
#[tokio::test]
async fn a_mirror_that_fails_is_passed_over_and_left_alone_for_a_while() {
    for (name, answer, asked_again) in [
        ("has it not", Answer::new(404, ""), true),
        ("is broken", Answer::new(500, ""), false),
        ("is busy", Answer::new(429, "").header("Retry-After", "3600"), false),
        ("does not know us", Answer::new(401, ""), false),
        ("does not want us", Answer::new(403, ""), false),
        ("is no registry", Answer::new(204, ""), false),
        ("is silent", Answer::new(200, layer()).cut(0).silent(), false),
        ("goes silent", Answer::new(200, layer()).cut(100_000).silent(), false),
        ("resets", Answer::new(200, layer()).cut(100_000).reset(), false),
        ("has less", Answer::new(200, &layer()[1..]), true),
        ("has more", Answer::new(200, [layer(), layer()].concat()).without_length(), true),
    ] {
        let other = digest(b"other");
        let other_path = format!("/v2/os/blobs/{other}");
        let mut store = one_image();
        store.0.insert(other_path.clone(), b"other".into());
        let mirror = store.clone().serve_layer(move |_, _, _| answer.clone()).await;
        let origin = store.serve().await;
        let registry = Registry::new(mirrored(&[&mirror])).unwrap();
        let image = registry.image(&origin.image(), &machine()).await.unwrap();
        assert_eq!(pull(&registry, &image).await.unwrap(), layer(), "{name}");
        assert_eq!(asked(&mirror), 1, "{name}");
        registry.small_blob(&origin.repository(), &other, 5).await.unwrap();
        assert_eq!(mirror.seen(&other_path).len(), usize::from(asked_again), "{name}");
    }
}

#[tokio::test]
async fn a_mirror_that_goes_on_where_the_one_before_it_broke() {
    let broken = one_image().serve_layer(|layer, _, _| Answer::new(200, layer).cut(100_000)).await;
    let (good, origin) = (one_image().serve().await, one_image().serve().await);
    assert_eq!(fetch_with(mirrored(&[&broken, &good]), &origin).await.unwrap(), layer());
    assert_eq!(good.seen(&layer_path())[0].from, 100_000);
    assert_eq!(asked(&origin), 0);
}

#[tokio::test]
async fn wrong_bytes_from_a_mirror_are_found_out_and_not_taken_twice() {
    let mut flipped = layer();
    flipped[LAYER_BYTES / 2] ^= 1;
    let mut lies = one_image();
    for (path, bytes) in &mut lies.0 {
        if path.contains("/blobs/") {
            bytes[0] ^= 1;
        }
    }
    // Documents are checked before they are used.
    let (origin, liar) = (one_image().serve().await, lies.serve().await);
    let registry = Registry::new(mirrored(&[&liar])).unwrap();
    let image = registry.image(&origin.image(), &machine()).await.unwrap();
    // A layer's bytes are out when its end is reached: the next attempt goes elsewhere, also with a new client.
    let liar = one_image().serve_layer(move |_, _, _| Answer::new(200, flipped.clone())).await;
    let options = mirrored(&[&liar]);
    let error = fetch_with(options.clone(), &origin).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("DigestMismatch", true), "{error}");
    assert!(error.to_string().contains(&liar.address), "{error}");
    assert_eq!(fetch_with(options, &origin).await.unwrap(), layer());
    assert_eq!(asked(&liar), 1);
    assert_eq!(pull(&registry, &image).await.unwrap_err().reason(), "DigestMismatch");
    assert_eq!(pull(&registry, &image).await.unwrap(), layer());
}

/// Before a byte of it is taken.
#[tokio::test]
async fn a_length_that_is_not_the_manifests_makes_the_next_one_be_asked() {
    let other = |bytes: Vec<u8>| one_image().serve_layer(move |_, _, _| Answer::new(200, bytes.clone()));
    let (short, long) = (other(layer()[1..].to_vec()).await, other([layer(), layer()].concat()).await);
    let (good, origin) = (one_image().serve().await, one_image().serve().await);
    assert_eq!(fetch_with(mirrored(&[&short, &long, &good]), &origin).await.unwrap(), layer());
    assert_eq!((asked(&short), asked(&long), asked(&good), asked(&origin)), (1, 1, 1, 0));
    let wrong_too = other(layer()[2..].to_vec()).await;
    let error = fetch_with(mirrored(&[&short]), &wrong_too).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("TruncatedLayer", true), "{error}");
    let text = format!("{:#}", anyhow::Error::from(error));
    for word in
        [&short.address, "299999 bytes", "299998 bytes", "300000 in the manifest", "push the image again"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn when_nobody_has_it_everybody_is_named() {
    let mirror = Server::start(|_, _| Answer::new(503, "")).await;
    let origin = Store::default().serve().await;
    let image = format!("{}@{}", origin.repository(), digest(b"nothing"));
    let registry = Registry::new(mirrored(&[&mirror])).unwrap();
    let error = registry.manifest_bytes(&image).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("ImageNotFound", true));
    assert!(error.is_not_found() && error.to_string().contains(&mirror.address), "{error}");
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn an_image_without_signatures_has_none_also_where_a_mirror_is_broken() {
    let mirror = Server::start(|_, _| Answer::new(500, "")).await;
    let origin = one_image().serve().await;
    let mut options = mirrored(&[&mirror]);
    options.pull.mirrors[0].resolve = true;
    let registry = Registry::new(options).unwrap();
    let image = format!("{}@{}", origin.repository(), digest(b"image"));
    let subject = evenkeel_registry::subject(&image).unwrap().unwrap();
    assert!(registry.signatures(&subject).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_mirror_gets_its_own_credentials_and_never_the_registrys() {
    let closed = |name: &'static str| {
        let images = one_image();
        Server::start(move |request, _| match request.authorization.as_deref() {
            Some(value) if value == basic(name) => images.answer(request),
            _ => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
        })
    };
    let (origin, mirror, stranger) =
        (closed("origin").await, closed("mirror").await, closed("stranger").await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let user = |name: &str| json!({ "username": name, "password": "p" });
    let auths = json!({ &origin.address: user("origin"), &mirror.address: user("mirror") });
    fs::write(&config, json!({ "auths": auths }).to_string()).unwrap();
    let options = RegistryOptions { docker_config: Some(config), ..mirrored(&[&stranger, &mirror]) };
    assert_eq!(fetch_with(options, &origin).await.unwrap(), layer());
    assert_eq!(asked(&origin), 0);
    for (server, name) in [(&stranger, "stranger"), (&mirror, "mirror")] {
        for request in server.all() {
            assert!(request.authorization.is_none_or(|value| value == basic(name)), "{name}");
        }
    }
}

fn basic(name: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{name}:p")))
}

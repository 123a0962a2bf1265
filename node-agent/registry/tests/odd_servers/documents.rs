//! Documents behind plain addresses.

use evenkeel_crds::managed_os_image::Pull;
use evenkeel_e2e::registry::Certificate;
use evenkeel_registry::{Document, Registry, RegistryOptions};

use crate::{
    options, registry,
    server::{Answer, Server},
};

#[tokio::test]
async fn a_document_is_fetched_again_only_when_it_is_another_one() {
    let certificate = Certificate::new().unwrap();
    let server = Server::start_tls(&certificate, |request, _| match request.if_none_match.as_deref() {
        Some("\"1\"") => Answer::new(304, ""),
        _ => Answer::new(200, "[]").header("ETag", "\"1\""),
    })
    .await;
    let pull = Pull { plain_http: false, ca_bundle: Some(certificate.authority), ..Pull::default() };
    let registry = Registry::new(RegistryOptions { pull, ..options() }).unwrap();
    let url = format!("https://{}/channel.json", server.address);
    let Document::Changed { bytes, etag } = registry.document(&url, None, 2).await.unwrap() else { panic!() };
    assert_eq!((&bytes[..], etag.as_deref()), (&b"[]"[..], Some("\"1\"")));
    assert_eq!(registry.document(&url, etag.as_deref(), 2).await.unwrap(), Document::Unchanged);
    let other = registry.document(&url, Some("\"0\""), 2).await.unwrap();
    assert!(matches!(other, Document::Changed { .. }));
    let error = registry.document(&url, None, 1).await.unwrap_err();
    assert!(error.to_string().contains(&url) && error.to_string().contains("larger than 1 bytes"), "{error}");
}

#[tokio::test]
async fn documents_that_cannot_be_had() {
    for (answer, reason, asked) in [
        (Answer::new(404, ""), "ImageNotFound", 1),
        (Answer::new(403, ""), "DocumentRefused", 1),
        (Answer::new(304, ""), "DocumentRefused", 1),
        (Answer::new(503, ""), "RegistryUnavailable", 4),
        (Answer::new(200, "[]").cut(0).reset(), "RegistryUnreachable", 4),
        (Answer::new(200, "x".repeat(1 << 16)).endless(), "InvalidManifest", 1),
    ] {
        let server = Server::start(move |_, _| answer.clone()).await;
        let url = format!("http://{}/channel.json", server.address);
        let error = registry(None).document(&url, None, 1 << 20).await.unwrap_err();
        assert_eq!((error.reason(), server.all().len()), (reason, asked), "{error}");
    }
    let closed = Registry::new(RegistryOptions::default()).unwrap();
    for url in ["http://r.example/channel.json", "ftp://r.example/x", "channel.json"] {
        let error = closed.document(url, None, 1).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("DocumentRefused", false), "{error}");
    }
}

//! What lies beside an image.

use serde_json::json;

use crate::{
    Store, registry,
    server::{Answer, Server, digest},
};

const SUBJECT: &[u8] = b"subject";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[tokio::test]
async fn a_manifest_comes_as_it_is_with_its_kind_and_its_digest() {
    let text = r#"{ "mediaType": "application/x", "layers": [] }"#;
    let mut store = Store::default();
    store.0.insert("/v2/os/manifests/1".into(), text.into());
    store.0.insert(format!("/v2/os/manifests/{}", digest(text.as_bytes())), text.into());
    let server = store.serve().await;
    for image in [server.image(), format!("{}/os@{}", server.address, digest(text.as_bytes()))] {
        let found = registry(None).manifest_bytes(&image).await.unwrap();
        assert_eq!(found.bytes, text.as_bytes());
        assert_eq!((found.media_type.as_str(), found.digest), ("application/x", digest(text.as_bytes())));
    }
    let missing = format!("{}/os:sha256-1.sig", server.address);
    assert_eq!(registry(None).manifest_bytes(&missing).await.unwrap_err().reason(), "ImageNotFound");
}

#[tokio::test]
async fn a_small_blob_is_checked_and_not_larger_than_asked_for() {
    let mut store = Store::default();
    store.0.insert(format!("/v2/os/blobs/{}", digest(b"right")), b"right".into());
    store.0.insert(format!("/v2/os/blobs/{}", digest(b"wrong")), b"Wrong".into());
    let server = store.serve().await;
    let repository = format!("{}/os", server.address);
    let registry = registry(None);
    let get = |content: &[u8], limit| {
        let (registry, repository, digest) = (&registry, &repository, digest(content));
        async move { registry.small_blob(repository, &digest, limit).await }
    };
    assert_eq!(get(b"right", 5).await.unwrap(), &b"right"[..]);
    for (content, limit, reason) in [
        (&b"right"[..], 4, "InvalidManifest"),
        (b"wrong", 5, "DigestMismatch"),
        (b"missing", 5, "ImageNotFound"),
    ] {
        let error = get(content, limit).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, false), "{error}");
        assert!(error.to_string().contains(&digest(content)), "{error}");
    }
}

#[tokio::test]
async fn referrers_are_found_by_list_or_tag_and_chosen_here() {
    let entry = |kind: &str, content: &[u8]| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(content), "size": 3,
            "artifactType": kind,
        })
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry("application/other", b"a"), entry(BUNDLE, b"b")],
    });
    let subject = digest(SUBJECT);
    for path in
        [format!("/v2/os/referrers/{subject}"), format!("/v2/os/manifests/{}", subject.replace(':', "-"))]
    {
        let mut store = Store::default();
        store.0.insert(path, index.to_string().into_bytes());
        let server = store.serve().await;
        let repository = format!("{}/os", server.address);
        let registry = registry(None);
        let found = registry.referrers(&repository, &subject, Some(BUNDLE)).await.unwrap();
        let found: Vec<&str> = found.iter().map(|one| one.digest.as_str()).collect();
        assert_eq!(found, [digest(b"b")]);
        assert_eq!(registry.referrers(&repository, &subject, None).await.unwrap().len(), 2);
        assert!(registry.referrers(&repository, &digest(b"other"), None).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_list_of_referrers_that_cannot_be_read_is_not_an_empty_one() {
    for (status, body, reason) in [
        (200, "<html>", "InvalidManifest"),
        (200, r#"{"manifests":[{"mediaType":"x","digest":"sha512:0","size":1}]}"#, "InvalidReference"),
        (418, "", "RegistryRefused"),
    ] {
        let server = Server::start(move |_, _| Answer::new(status, body)).await;
        let repository = format!("{}/os", server.address);
        let error = registry(None).referrers(&repository, &digest(SUBJECT), None).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

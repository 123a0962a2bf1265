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

/// A server of lists with `pages` pages, whose links are made from the number of the next one.
async fn in_pages(pages: usize, link: impl Fn(usize) -> String + Send + Sync + 'static) -> Server {
    Server::start(move |request, _| {
        let number: usize =
            request.query.rsplit_once("page=").map_or(0, |(_, number)| number.parse().unwrap());
        let entry = json!({ "mediaType": "m", "digest": digest(&[number.to_le_bytes()[0]]), "size": 1 });
        let body = json!({ "manifests": [entry], "tags": [format!("t{number}")] });
        let answer = Answer::new(200, body.to_string());
        if number + 1 < pages { answer.header("Link", &link(number + 1)) } else { answer }
    })
    .await
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let server = in_pages(3, |next| format!("<?page={next}>; rel=\"next\"")).await;
    let registry = registry(None);
    let found = registry.referrers(&server.repository(), &digest(SUBJECT), None).await.unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(registry.tags(&server.repository()).await.unwrap(), ["t0", "t1", "t2"]);
    assert_eq!(server.seen("/v2/os/tags/list")[0].query, "n=1000");
}

#[tokio::test]
async fn a_list_without_an_end_or_with_an_end_elsewhere_is_refused() {
    let endless = in_pages(usize::MAX, |next| format!("</v2/os/tags/list?page={next}>; rel=next")).await;
    let error = registry(None).tags(&endless.repository()).await.unwrap_err();
    assert_eq!((error.reason(), endless.all().len()), ("InvalidManifest", 100), "{error}");
    let thief = in_pages(1, |_| String::new()).await;
    let address = thief.address.clone();
    let lure =
        in_pages(2, move |next| format!("<http://{address}/v2/os/tags/list?page={next}>; rel=next")).await;
    let error = registry(None).tags(&lure.repository()).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryRefused", "{error}");
    assert!(thief.all().is_empty());
}

#[tokio::test]
async fn a_repository_may_have_no_tags_and_a_list_of_them_may_be_none() {
    for (body, tags) in
        [(r#"{"name":"os","tags":null}"#, Some(0)), (r#"{"tags":["1"]}"#, Some(1)), ("[]", None)]
    {
        let server = Server::start(move |_, _| Answer::new(200, body)).await;
        let found = registry(None).tags(&server.repository()).await;
        assert_eq!(found.ok().map(|tags| tags.len()), tags, "{body}");
    }
}

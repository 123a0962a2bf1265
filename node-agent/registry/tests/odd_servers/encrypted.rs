//! TLS: whom we trust, where we let ourselves be sent, and HTTP/2.

use std::{fs, process::Command};

use evenkeel_crds::managed_os_image::Pull;
use evenkeel_e2e::registry::Certificate;
use evenkeel_registry::RegistryOptions;

use crate::{
    fetch_with, h2, layer, layer_path, one_image, options,
    server::{Answer, Server},
};

fn trusting(authority: Option<&str>) -> RegistryOptions {
    let pull = Pull { plain_http: false, ca_bundle: authority.map(str::to_owned), ..options().pull };
    RegistryOptions { pull, ..options() }
}

#[tokio::test]
async fn an_authority_is_trusted_when_it_is_given_in_a_field_or_a_file() {
    let certificate = Certificate::new().unwrap();
    let images = one_image();
    let server = Server::start_tls(&certificate, move |request, _| images.answer(request)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let with_file = RegistryOptions { ca_file: Some(file.clone()), ..trusting(None) };
    // A file that is not there is no error: a mounted one may come later.
    for options in [trusting(None), with_file.clone(), trusting(Some(&Certificate::new().unwrap().authority))]
    {
        let error = fetch_with(options, &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("RegistryUnreachable", true), "{error}");
        let words = format!("{:#}", anyhow::Error::from(error));
        assert!(words.contains("invalid peer certificate"), "{words}");
    }
    fs::write(file, &certificate.authority).unwrap();
    for options in [trusting(Some(&certificate.authority)), with_file] {
        assert_eq!(fetch_with(options, &server).await.unwrap(), layer());
    }
}

#[tokio::test]
async fn the_authority_of_a_mirror_in_containerds_files_is_trusted_there_alone() {
    let (of_mirror, of_origin) = (Certificate::new().unwrap(), Certificate::new().unwrap());
    let (for_mirror, for_origin) = (one_image(), one_image());
    let mirror = Server::start_tls(&of_mirror, move |request, _| for_mirror.answer(request)).await;
    let origin = Server::start_tls(&of_origin, move |request, _| for_origin.answer(request)).await;
    let folder = tempfile::tempdir().unwrap();
    let default = folder.path().join("_default");
    fs::create_dir(&default).unwrap();
    fs::write(default.join("mirror.pem"), &of_mirror.authority).unwrap();
    let file =
        format!("[host.\"https://{}\"]\ncapabilities = [\"pull\"]\nca = \"mirror.pem\"", mirror.address);
    fs::write(default.join("hosts.toml"), file).unwrap();
    let options = trusting(Some(&of_origin.authority));
    let options = RegistryOptions { hosts_dir: Some(folder.path().to_owned()), ..options };
    assert_eq!(fetch_with(options.clone(), &origin).await.unwrap(), layer());
    assert_eq!((mirror.seen(&layer_path()).len(), origin.seen(&layer_path()).len()), (1, 0));
    // As the registry itself it has the same certificate, and the file does not speak of it.
    assert_eq!(fetch_with(options, &mirror).await.unwrap_err().reason(), "RegistryUnreachable");
}

#[tokio::test]
async fn a_client_certificate_that_cannot_be_used_is_named() {
    let certificate = Certificate::new().unwrap();
    let server = Server::start_tls(&certificate, |_, _| Answer::new(200, "{}")).await;
    let folder = tempfile::tempdir().unwrap();
    let default = folder.path().join("_default");
    fs::create_dir(&default).unwrap();
    fs::write(default.join("me.key"), &certificate.key).unwrap();
    let options = RegistryOptions { hosts_dir: Some(folder.path().to_owned()), ..trusting(None) };
    for (content, reason, path) in [
        (None, "InvalidClientCertificate", default.clone()),
        (Some("no certificate"), "InvalidClientCertificate", default.join("me.cert")),
    ] {
        if let Some(content) = content {
            fs::write(default.join("me.cert"), content).unwrap();
        }
        let error = fetch_with(options.clone(), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, true), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(!format!("{error:?}").contains("PRIVATE"), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_bundle() {
    let server = one_image().serve().await;
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bundle in ["", "-----BEGIN CERTIFICATE-----", broken] {
        let error = fetch_with(trusting(Some(bundle)), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("InvalidCaBundle", true), "{bundle:?}: {error}");
    }
}

#[tokio::test]
async fn nobody_sends_us_from_tls_to_plain_http_or_round_in_circles() {
    let certificate = Certificate::new().unwrap();
    let store = Server::start(|_, _| Answer::new(200, layer())).await;
    for (location, word) in
        [(format!("http://{}/layer", store.address), "from https to plain http"), (layer_path(), "redirect")]
    {
        let images = one_image();
        let server = Server::start_tls(&certificate, move |request, _| match request {
            _ if request.path == layer_path() => Answer::new(307, "").header("Location", &location),
            _ => images.answer(request),
        })
        .await;
        let error = fetch_with(trusting(Some(&certificate.authority)), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("RegistryRefused", false), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(store.all().is_empty());
}

#[tokio::test]
async fn a_password_is_not_given_to_a_token_server_without_tls() {
    let certificate = Certificate::new().unwrap();
    let tokens = Server::start(|_, _| Answer::new(200, r#"{"token":"t"}"#)).await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    let server = Server::start_tls(&certificate, move |_, _| {
        Answer::new(401, "").header("WWW-Authenticate", &challenge)
    })
    .await;
    let error = fetch_with(trusting(Some(&certificate.authority)), &server).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized", "{error}");
    assert!(tokens.all().is_empty());
}

/// A server that speaks nothing else, and breaks the layer's stream in each way.
#[tokio::test]
async fn http_2_is_spoken_and_a_stream_that_stops_is_taken_up() {
    const STOPS: &[h2::Stop] =
        &[h2::Stop::Reset(100_000), h2::Stop::Silence(50_000), h2::Stop::Silence(0), h2::Stop::Reset(0)];
    let certificate = Certificate::new().unwrap();
    let server = h2::Server::start(&certificate, one_image(), STOPS).await;
    let registry = evenkeel_registry::Registry::new(trusting(Some(&certificate.authority))).unwrap();
    let image = registry.image(&format!("{}/os:1", server.address), &crate::machine()).await.unwrap();
    assert_eq!(crate::pull(&registry, &image).await.unwrap(), layer());
    // What was on its way when a stream is reset may be lost.
    assert_eq!((server.layer_requests(), server.connections()), (5, 1));
}

/// Runs itself again where the machine has no certificates.
#[tokio::test]
async fn plain_http_needs_no_certificates_and_tls_says_that_there_are_none() {
    const MARK: &str = "EVENKEEL_TEST_WITHOUT_CERTIFICATES";
    if std::env::var_os(MARK).is_none() {
        let name = "encrypted::plain_http_needs_no_certificates_and_tls_says_that_there_are_none";
        let empty = tempfile::tempdir().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(MARK, "1")
            .env("SSL_CERT_FILE", empty.path().join("none.pem"))
            .env("SSL_CERT_DIR", empty.path())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let plain = one_image().serve().await;
    assert_eq!(fetch_with(options(), &plain).await.unwrap(), layer());
    let certificate = Certificate::new().unwrap();
    let images = one_image();
    let server = Server::start_tls(&certificate, move |request, _| images.answer(request)).await;
    let error = fetch_with(trusting(None), &server).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("NoTrustRoots", true), "{error}");
    assert_eq!(fetch_with(trusting(Some(&certificate.authority)), &server).await.unwrap(), layer());
}

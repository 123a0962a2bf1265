//! Proxies.

use evenkeel_crds::managed_os_image::{Proxy, Pull};
use evenkeel_e2e::registry::Certificate;
use evenkeel_registry::RegistryOptions;

use crate::{
    fetch_with, layer, one_image, options,
    server::{Answer, Server},
    tunnel::Tunnel,
};

/// u:p
const PASSWORD: &str = "Basic dTpw";

fn through(proxy: &str, no_proxy: &[&str]) -> RegistryOptions {
    let no_proxy = no_proxy.iter().map(|&name| name.to_owned()).collect();
    let proxy = Some(Proxy { url: proxy.to_owned(), no_proxy });
    RegistryOptions { pull: Pull { proxy, ..options().pull }, ..options() }
}

#[tokio::test]
async fn a_proxy_is_asked_unless_the_registry_is_among_its_exceptions() {
    let server = one_image().serve().await;
    let images = one_image();
    let proxy = Server::start(move |request, _| {
        // A proxy is given the whole address.
        let path = request.path.splitn(4, '/').nth(3).unwrap();
        images.answer(&crate::server::Request { path: format!("/{path}"), ..request.clone() })
    })
    .await;
    let url = format!("http://{}", proxy.address);
    for (no_proxy, by_proxy) in
        [(&[][..], true), (&["10.0.0.0/8"], true), (&["10.0.0.0/8", "127.0.0.0/8"], false)]
    {
        let before = (proxy.all().len(), server.all().len());
        assert_eq!(fetch_with(through(&url, no_proxy), &server).await.unwrap(), layer());
        let asked = (proxy.all().len() > before.0, server.all().len() > before.1);
        assert_eq!(asked, (by_proxy, !by_proxy), "{no_proxy:?}");
    }
    assert!(proxy.all()[0].path.starts_with(&format!("http://{}/v2/os/manifests/", server.address)));
}

async fn encrypted() -> (Server, Certificate) {
    let certificate = Certificate::new().unwrap();
    let images = one_image();
    (Server::start_tls(&certificate, move |request, _| images.answer(request)).await, certificate)
}

fn trusting(certificate: &Certificate, options: RegistryOptions) -> RegistryOptions {
    let ca_bundle = Some(certificate.authority.clone());
    RegistryOptions { pull: Pull { plain_http: false, ca_bundle, ..options.pull }, ..options }
}

#[tokio::test]
async fn to_a_registry_with_tls_a_tunnel_leads_with_the_proxys_password_if_it_wants_one() {
    let (server, certificate) = encrypted().await;
    for (password, user, no_proxy, expected) in [
        (None, "", &[][..], Some(None)),
        (None, "u:p@", &[], Some(Some(PASSWORD))),
        (Some(PASSWORD), "u:p@", &[], Some(Some(PASSWORD))),
        (Some(PASSWORD), "u:p@", &["127.0.0.1"], None),
    ] {
        let proxy = Tunnel::start(password).await;
        let options = through(&format!("http://{user}{}", proxy.address), no_proxy);
        assert_eq!(fetch_with(trusting(&certificate, options), &server).await.unwrap(), layer());
        let asked = proxy.asked();
        assert_eq!(asked.is_empty(), expected.is_none(), "{asked:?}");
        for (target, said) in asked {
            assert_eq!((&target, Some(said.as_deref())), (&server.address, expected));
        }
    }
    // The password is for the proxy alone.
    assert!(server.all().iter().all(|request| request.authorization.is_none()));
}

#[tokio::test]
async fn a_proxy_that_does_not_know_us_is_named() {
    let (server, certificate) = encrypted().await;
    let proxy = Tunnel::start(Some(PASSWORD)).await;
    for user in ["", "u:wrong@"] {
        let options = through(&format!("http://{user}{}", proxy.address), &[]);
        let error = fetch_with(trusting(&certificate, options), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("RegistryUnreachable", true), "{error}");
        let words = format!("{:#}", anyhow::Error::from(error));
        assert!(words.contains("proxy auth") && !words.contains("wrong"), "{words}");
    }
    assert!(server.all().is_empty());
}

/// Runs itself again with a proxy in the environment.
#[tokio::test]
async fn without_a_proxy_in_the_settings_that_of_the_environment_counts() {
    const MARK: &str = "EVENKEEL_TEST_PROXY";
    let name = "proxies::without_a_proxy_in_the_settings_that_of_the_environment_counts";
    if std::env::var_os(MARK).is_some() {
        let (server, certificate) = encrypted().await;
        assert_eq!(fetch_with(trusting(&certificate, options()), &server).await.unwrap(), layer());
        return;
    }
    for (no_proxy, by_proxy) in [("10.0.0.0/8", true), ("10.0.0.0/8,127.0.0.0/8", false)] {
        let proxy = Tunnel::start(Some(PASSWORD)).await;
        let status = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(MARK, "1")
            .env("HTTPS_PROXY", format!("http://u:p@{}", proxy.address))
            .env("NO_PROXY", no_proxy)
            .status()
            .await
            .unwrap();
        assert!(status.success());
        assert_eq!(!proxy.asked().is_empty(), by_proxy, "{no_proxy}");
    }
}

#[tokio::test]
async fn a_proxy_that_gives_no_tunnel() {
    let proxy = Server::start(|_, _| Answer::new(502, "")).await;
    let mut options = through(&format!("http://{}", proxy.address), &[]);
    options.pull.plain_http = false;
    let server = one_image().serve().await;
    let error = fetch_with(options, &server).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("RegistryUnreachable", true), "{error}");
    let asked = proxy.all();
    assert_eq!((asked[0].method.as_str(), &asked[0].path), ("CONNECT", &server.address));
    assert!(server.all().is_empty());
}

#[tokio::test]
async fn what_is_no_proxy() {
    let server = one_image().serve().await;
    for url in ["", "http://", "proxy with spaces"] {
        let error = fetch_with(through(url, &[]), &server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), ("InvalidProxy", false), "{error}");
    }
}

//! Proxies.

use evenkeel_crds::managed_os_image::{Proxy, Pull};
use evenkeel_registry::RegistryOptions;

use crate::{
    fetch_with, layer, one_image, options,
    server::{Answer, Server},
};

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

#[tokio::test]
async fn to_a_registry_with_tls_the_proxy_gives_a_tunnel() {
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

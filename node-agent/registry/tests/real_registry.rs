//! Debian's docker-registry: with TLS (and so HTTP/2), passwords, and a process that dies.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use evenkeel_crds::managed_os_image::{Mirror, Pull};
use evenkeel_e2e::registry::{self as real, Certificate, Compression, Layer, Pushed};
use evenkeel_registry::{Blob, Image, Limits, Platform, Registry, RegistryError, RegistryOptions};
use serde_json::json;

/// More than the buffers between hold, so that a registry that dies takes some of it with it.
const LAYER_BYTES: usize = 32 << 20;

/// Bytes that nothing on the way can make smaller.
fn bytes() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..LAYER_BYTES).map(|_| next()).collect()
}

async fn start(folder: &Path, options: real::Options) -> Result<(real::Registry, Pushed)> {
    let registry = real::Registry::start(folder, options).await?;
    let layer = Layer::from_bytes(bytes(), Compression::None)?;
    let pushed = real::push(&registry, "team/os", "1", &real::Image::new(vec![layer])).await?;
    Ok((registry, pushed))
}

fn machine() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
}

async fn rest(mut blob: Blob<'_>) -> Result<usize, RegistryError> {
    let mut count = 0;
    while let Some(bytes) = blob.next().await? {
        count += bytes.len();
    }
    Ok(count)
}

fn layer<'a>(registry: &'a Registry, image: &'a Image) -> Blob<'a> {
    registry.layer(image, &image.layers[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_password_and_through_the_death_of_the_registry() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let certificate = Certificate::new()?;
    let login = ("reader".to_owned(), "correct horse".to_owned());
    let options = real::Options {
        htpasswd: Some(login),
        certificate: Some(certificate.clone()),
        ..real::Options::default()
    };
    let (mut server, pushed) = start(folder.path(), options).await?;
    let config = folder.path().join("config.json");
    let pull = Pull { ca_bundle: Some(certificate.authority), ..Pull::default() };
    let options = RegistryOptions { pull, docker_config: Some(config.clone()), ..RegistryOptions::default() };
    let registry = Registry::new(options)?;
    assert_eq!(registry.resolve(&pushed.tagged).await.unwrap_err().reason(), "Unauthorized");
    let login =
        json!({ "auths": { server.address(): { "username": "reader", "password": "correct horse" } } });
    fs::write(&config, login.to_string())?;
    assert_eq!(registry.resolve(&pushed.tagged).await?.image, pushed.pinned);
    let image = registry.image(&pushed.pinned, &machine()).await?;
    let mut blob = layer(&registry, &image);
    let first = blob.next().await?.expect("it has bytes").len();
    server.kill();
    let (count, ()) = tokio::try_join!(async { Ok(rest(blob).await?) }, server.restart())?;
    assert_eq!(first + count, LAYER_BYTES);
    assert!(registry.referrers(&image_repository(&pushed), &pushed.digest, None).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_dies_in_the_middle_is_replaced_by_the_registry() -> Result<()> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (server, pushed) = start(here.path(), real::Options::default()).await?;
    let (mut mirror, _) = start(there.path(), real::Options::default()).await?;
    let name =
        Mirror { registry: server.address(), url: format!("http://{}", mirror.address()), resolve: false };
    let pull = Pull { plain_http: true, mirrors: vec![name], ..Pull::default() };
    let registry = Registry::new(RegistryOptions { pull, ..RegistryOptions::default() })?;
    let image = registry.image(&pushed.pinned, &machine()).await?;
    let mut blob = layer(&registry, &image);
    let first = blob.next().await?.expect("it has bytes").len();
    mirror.kill();
    assert_eq!(first + rest(blob).await?, LAYER_BYTES);
    Ok(())
}

/// A registry that wants a certificate of each client, with our files as containerd and as Docker have them.
#[tokio::test(flavor = "multi_thread")]
async fn by_a_client_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (certificate, clients) = (Certificate::new()?, Certificate::new()?);
    let (open, pushed) = start(folder.path(), real::Options::default()).await?;
    drop(open);
    let options = real::Options {
        certificate: Some(certificate.clone()),
        client_authority: Some(clients.authority.clone()),
        ..real::Options::default()
    };
    let server = real::Registry::start(folder.path(), options).await?;
    let stranger = Certificate::new()?;
    let both = |one: &Certificate| format!("{}{}", one.key, one.chain);
    let hosts = |certificate: &str| format!("ca = \"ca.pem\"\nclient = {certificate}");
    for (files, known) in [
        (
            vec![
                ("hosts.toml", hosts("[[\"c\", \"k\"]]")),
                ("c", clients.chain.clone()),
                ("k", clients.key.clone()),
            ],
            true,
        ),
        (vec![("hosts.toml", hosts("\"both\"")), ("both", both(&clients))], true),
        (vec![("me.cert", clients.chain.clone()), ("me.key", clients.key.clone())], true),
        (vec![("hosts.toml", hosts("\"both\"")), ("both", both(&stranger))], false),
        (vec![("hosts.toml", "ca = \"ca.pem\"".to_owned())], false),
    ] {
        let hosts_dir = tempfile::tempdir()?;
        let own = hosts_dir.path().join(server.address());
        fs::create_dir(&own)?;
        let authority = if files[0].0 == "hosts.toml" { "ca.pem" } else { "ca.crt" };
        fs::write(own.join(authority), &certificate.authority)?;
        for (name, text) in &files {
            fs::write(own.join(name), text)?;
        }
        let options =
            RegistryOptions { hosts_dir: Some(hosts_dir.path().to_owned()), ..RegistryOptions::default() };
        let options =
            RegistryOptions { limits: Limits { pause: Duration::ZERO, ..Limits::default() }, ..options };
        let resolved = Registry::new(options)?.resolve(&format!("{}/team/os:1", server.address())).await;
        match resolved {
            Ok(resolved) => assert!(known && resolved.digest == pushed.digest, "{files:?}"),
            Err(error) => assert!(!known && error.reason() == "RegistryUnreachable", "{files:?}: {error}"),
        }
    }
    Ok(())
}

fn image_repository(pushed: &Pushed) -> String {
    pushed.pinned.split('@').next().unwrap_or_default().to_owned()
}

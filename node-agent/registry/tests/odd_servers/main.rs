//! What the client makes of registries that are odd, broken, or after something.

mod attached;
mod documents;
mod encrypted;
mod h2;
mod layers;
mod login;
mod manifests;
mod mirrors;
mod parts;
mod presence;
mod proxies;
mod server;
mod tokens;
mod tunnel;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use evenkeel_crds::managed_os_image::Pull;
use evenkeel_registry::{Image, Limits, Platform, Registry, RegistryError, RegistryOptions};
use serde_json::{Value, json};
use server::{Answer, Request, Server, digest};

const LAYER_BYTES: usize = 300_000;

fn machine() -> Platform {
    Platform { os: "linux".into(), architecture: "arm".into(), variant: Some("v7".into()) }
}

/// Plain HTTP, and a patience that fits tests.
fn options() -> RegistryOptions {
    let limits = Limits {
        // Longer than a busy machine lets a healthy server wait.
        idle: Duration::from_secs(3),
        pause: Duration::from_millis(2),
        pause_busy: Duration::from_millis(5),
        pause_max: Duration::from_millis(20),
        retry_after_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let pull = Pull { plain_http: true, ..Pull::default() };
    RegistryOptions { pull, limits, ..RegistryOptions::default() }
}

fn registry(docker_config: Option<PathBuf>) -> Registry {
    Registry::new(RegistryOptions { docker_config, ..options() }).unwrap()
}

fn layer() -> Vec<u8> {
    (0..LAYER_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn layer_path() -> String {
    format!("/v2/os/blobs/{}", digest(&layer()))
}

/// Documents by path, with one image for `platform` under the tag 1.
#[derive(Clone, Default)]
struct Store(BTreeMap<String, Vec<u8>>);

impl Store {
    fn image(mut self, architecture: &str, variant: &str) -> (Self, Value) {
        let layer = layer();
        let config = json!({
            "os": "linux", "architecture": architecture, "variant": variant, "created": "yesterday",
            "config": { "Labels": { "org.opencontainers.image.version": variant } },
            "rootfs": { "type": "layers", "diff_ids": [digest(b"tar")] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "x", "digest": digest(&config), "size": config.len() },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len(),
            }],
        });
        self.0.insert(format!("/v2/os/blobs/{}", digest(&config)), config);
        self.0.insert(format!("/v2/os/blobs/{}", digest(&layer)), layer);
        let entry = self.manifest(&manifest);
        (self, entry)
    }

    /// Keeps it by its digest and under the tag; gives the entry of an index.
    fn manifest(&mut self, manifest: &Value) -> Value {
        let bytes = manifest.to_string().into_bytes();
        let (digest, size) = (digest(&bytes), bytes.len());
        self.0.insert(format!("/v2/os/manifests/{digest}"), bytes.clone());
        self.0.insert("/v2/os/manifests/1".into(), bytes);
        json!({ "mediaType": "x", "digest": digest, "size": size })
    }

    fn answer(&self, request: &Request) -> Answer {
        match self.0.get(&request.path) {
            Some(bytes) if request.from > 0 => Answer::part(bytes, request.from),
            Some(bytes) => Answer::new(200, &bytes[..]),
            None => Answer::new(404, "{}"),
        }
    }

    async fn serve(self) -> Server {
        Server::start(move |request, _| self.answer(request)).await
    }

    /// Serves it, and the layer as told: by its bytes, the request, and the request's number.
    async fn serve_layer(
        self,
        odd: impl Fn(&[u8], &Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let (layer, path) = (layer(), layer_path());
        Server::start(move |request, number| match request {
            _ if request.path == path => odd(&layer, request, number),
            _ => self.answer(request),
        })
        .await
    }
}

fn one_image() -> Store {
    Store::default().image("arm", "v7").0
}

async fn pull(registry: &Registry, image: &Image) -> Result<Vec<u8>, RegistryError> {
    let mut blob = registry.layer(image, &image.layers[0]);
    let mut bytes = Vec::new();
    while let Some(piece) = blob.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn fetch(server: &Server) -> Result<Vec<u8>, RegistryError> {
    fetch_with(options(), server).await
}

async fn fetch_with(options: RegistryOptions, server: &Server) -> Result<Vec<u8>, RegistryError> {
    let registry = Registry::new(options)?;
    let image = registry.image(&server.image(), &machine()).await?;
    pull(&registry, &image).await
}

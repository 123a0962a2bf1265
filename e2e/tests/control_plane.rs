//! The control plane and the registry that everything else is tested with.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context as _, Result};
use evenkeel_e2e::{
    control_plane::{ControlPlane, Options},
    process::Scratch,
    registry::{self, Compression, Image, Layer, Registry},
    tools::{self, Tool, Tools},
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::{Api, Client, api::PostParams};
use oci_client::{Reference, client::ClientConfig, secrets::RegistryAuth};
use serde_json::json;

async fn tools() -> Result<Tools> {
    tools::ensure(&[Tool::Etcd, Tool::KubeApiserver, Tool::KubeControllerManager, Tool::KubeScheduler]).await
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn two_whole_control_planes_run_beside_each_other_and_end() -> Result<()> {
    let scratch = Scratch::new("two-planes")?;
    let tools = tools().await?;
    let options = |name: &str| Options::whole(scratch.path().join(name));
    let (first, second) = (options("first"), options("second"));
    let (first, second) =
        tokio::try_join!(ControlPlane::start(&tools, &first), ControlPlane::start(&tools, &second))?;
    let version = first.client().apiserver_version().await?;
    assert!(version.git_version.starts_with("v1."), "{version:?}");
    assert_ne!(version.git_version, "v0.0.0-master+$Format:%H$");
    for plane in [&first, &second] {
        let roots: Api<ConfigMap> = Api::namespaced(plane.client(), "default");
        let root = wait(|| async { roots.get_opt("kube-root-ca.crt").await.ok().flatten() }).await?;
        assert_eq!(root.data.unwrap_or_default()["ca.crt"], plane.ca_pem());
    }
    let ports = [first.port(), second.port()];
    drop((first, second));
    assert!(!ports.into_iter().any(listens), "an API server outlived its owner");
    Ok(())
}

#[tokio::test]
async fn what_was_written_is_there_after_the_api_server_was_killed() -> Result<()> {
    let scratch = Scratch::new("restart")?;
    let mut plane = ControlPlane::start(&tools().await?, &Options::new(scratch.path())).await?;
    let spaces: Api<Namespace> = Api::all(plane.client());
    let space: Namespace = serde_json::from_value(json!({ "metadata": { "name": "kept" } }))?;
    spaces.create(&PostParams::default(), &space).await?;
    plane.kill_api_server();
    assert!(!listens(plane.port()));
    plane.restart_api_server().await?;
    spaces.get("kept").await?;
    Ok(())
}

#[tokio::test]
async fn a_node_token_makes_its_own_node_and_no_other() -> Result<()> {
    let scratch = Scratch::new("nodes")?;
    let options = Options { nodes: vec!["n1".into()], ..Options::new(scratch.path()) };
    let plane = ControlPlane::start(&tools().await?, &options).await?;
    let nodes: Api<Node> = Api::all(plane.client_for(plane.node_token("n1")?).await?);
    let node = |name: &str| serde_json::from_value::<Node>(json!({ "metadata": { "name": name } }));
    nodes.create(&PostParams::default(), &node("n1")?).await?;
    let refused = nodes.create(&PostParams::default(), &node("n2")?).await.unwrap_err();
    assert!(refused.to_string().contains("not allowed"), "{refused}");
    let stranger: Client = plane.client_for("no-such-token").await?;
    assert!(Api::<Node>::all(stranger).get("n1").await.unwrap_err().to_string().contains("Unauthorized"));
    Ok(())
}

fn archive(text: &str) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", text.as_bytes())?;
    Ok(tar.into_inner()?)
}

#[tokio::test]
async fn an_image_comes_back_from_the_registry_after_it_was_killed() -> Result<()> {
    let scratch = Scratch::new("registry")?;
    let options =
        registry::Options { htpasswd: Some(("me".into(), "secret".into())), ..registry::Options::default() };
    let mut registry = Registry::start(scratch.path(), options).await?;
    let tar = archive("content")?;
    let layers = [Compression::None, Compression::Gzip, Compression::Zstd];
    let layers = layers.iter().map(|form| Layer::from_tar(&tar, *form)).collect::<Result<Vec<_>>>()?;
    assert!(layers.iter().all(|layer| layer.diff_id == layers[0].digest));
    let image = Image::new(layers).label("org.opencontainers.image.version", "1");
    let pushed = registry::push(&registry, "some/os", "1", &image).await?;
    let index = registry::push_index(&registry, "some/os", "all", std::slice::from_ref(&pushed)).await?;
    assert_ne!(index.digest, pushed.digest);

    registry.kill();
    assert!(!listens(registry.port()));
    registry.restart().await?;

    let config =
        ClientConfig { protocol: oci_client::client::ClientProtocol::Http, ..ClientConfig::default() };
    let client = oci_client::Client::try_from(config)?;
    let auth = RegistryAuth::Basic("me".into(), "secret".into());
    for reference in [&pushed.tagged, &pushed.pinned, &index.tagged] {
        let reference: Reference = reference.parse()?;
        let (manifest, digest, config) = client.pull_manifest_and_config(&reference, &auth).await?;
        assert_eq!(digest, pushed.digest);
        assert_eq!(manifest.layers.len(), 3);
        assert!(config.contains("org.opencontainers.image.version"), "{config}");
    }
    let wrong = RegistryAuth::Basic("me".into(), "wrong".into());
    let client = oci_client::Client::try_from(ClientConfig {
        protocol: oci_client::client::ClientProtocol::Http,
        ..ClientConfig::default()
    })?;
    assert!(client.pull_manifest(&pushed.tagged.parse()?, &wrong).await.is_err());
    Ok(())
}

/// Waits for something that a controller does in its own time.
async fn wait<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> Result<T> {
    for _ in 0..300 {
        if let Some(found) = look().await {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None.context("nothing came within 30 s")
}

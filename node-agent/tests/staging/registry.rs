//! Debian's registry, as a process on a port of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Client, RequestBuilder, StatusCode, header::CONTENT_TYPE};
use tempfile::TempDir;

use crate::image::{Blob, Image};

pub const USER: &str = "reader";
pub const PASSWORD: &str = "correct horse";

pub struct Registry {
    process: Child,
    address: String,
    folder: TempDir,
    login: bool,
}

impl Registry {
    pub fn start() -> Self {
        Self::serve(false)
    }

    /// One that wants a user name and a password.
    pub fn with_login() -> Self {
        Self::serve(true)
    }

    fn serve(login: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            data.display()
        );
        if login {
            let passwords = folder.path().join("htpasswd");
            fs::write(&passwords, format!("{USER}:{}\n", bcrypt::hash(PASSWORD, 4).unwrap())).unwrap();
            writeln!(config, "auth: {{htpasswd: {{realm: test, path: '{}'}}}}", passwords.display()).unwrap();
        }
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry: install Debian's package of that name");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        // Its log must be read, or it stops when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process, address, folder, login }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Number of its process.
    #[allow(dead_code, reason = "the benchmark asks, the tests do not")]
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes an image; gives its reference.
    pub async fn push(&self, image: &Image, name: &str) -> String {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(name, blob).await;
        }
        self.push_manifest(&image.manifest, name).await
    }

    /// Pushes a manifest or an index; its parts are there.
    pub async fn push_manifest(&self, manifest: &Blob, name: &str) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        let request =
            Client::new().put(url).header(CONTENT_TYPE, &manifest.media_type).body(manifest.bytes.clone());
        let response = self.authorized(request).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
        self.reference(name)
    }

    pub async fn push_blob(&self, name: &str, blob: &Blob) {
        let repository = name.split(':').next().unwrap();
        let client = client();
        let url = self.url(&format!("{repository}/blobs/uploads/"));
        let response = self.authorized(client.post(url)).send().await.unwrap();
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let request = client
            .put(format!("{location}&digest={}", blob.digest))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(blob.bytes.clone());
        let response = self.authorized(request).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        if self.login { request.basic_auth(USER, Some(PASSWORD)) } else { request }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    /// The file in which the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

/// Without TLS, which needs nothing to trust.
fn client() -> Client {
    Client::builder().tls_certs_only([]).build().unwrap()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

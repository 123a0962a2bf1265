//! The program that signs images, as people use it: key pairs in files, and no network but the registry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_e2e::{
    host_packages,
    process::Scratch,
    tools::{self, Tool},
};
use tokio::process::Command;

/// What both signing and verifying are told: the registry speaks plain HTTP.
const PLAIN: &str = "--allow-http-registry";

/// The form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Sigstore bundle that refers to the image.
    Bundle,
    /// A payload beside its signature, under a tag.
    Classic,
}

/// A kind of key, and how the program is told to check its signatures: it does not choose the hash by the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Kind {
    fn openssl(self) -> &'static [&'static str] {
        match self {
            Self::P256 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::P384 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::Ed25519 => &["ED25519"],
            Self::Rsa => &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        }
    }
}

/// A key pair.
#[derive(Clone, Debug)]
pub struct Key {
    kind: Kind,
    private: PathBuf,
    /// The public key in PEM.
    pub public: PathBuf,
}

impl Key {
    /// The public key's text.
    pub fn pem(&self) -> Result<String> {
        fs::read_to_string(&self.public).context("read a public key")
    }
}

/// The program, with a folder for its keys.
pub struct Cosign {
    program: PathBuf,
    folder: Scratch,
}

impl Cosign {
    /// Has the program.
    pub async fn new() -> Result<Self> {
        host_packages::ensure(&[("openssl", "openssl")]).await?;
        let program = tools::ensure(&[Tool::Cosign]).await?.path(Tool::Cosign);
        Ok(Self { program, folder: Scratch::new("cosign")? })
    }

    /// Makes a key pair.
    pub async fn key(&self, name: &str, kind: Kind) -> Result<Key> {
        let pem = self.file(&format!("{name}.pem"));
        let mut openssl = Command::new(host_packages::find("openssl")?);
        openssl.args(["genpkey", "-algorithm"]).args(kind.openssl()).arg("-out").arg(&pem);
        let output = openssl.output().await.context("run openssl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let prefix = self.file(name);
        let arguments =
            ["import-key-pair", "--yes", "--key", text(&pem)?, "--output-key-prefix", text(&prefix)?];
        self.must(&arguments).await?;
        let file = |end: &str| self.file(&format!("{name}.{end}"));
        Ok(Key { kind, private: file("key"), public: file("pub") })
    }

    /// Signs an image, given by its digest or by a tag.
    pub async fn sign(&self, image: &str, key: &Key, form: Form) -> Result<()> {
        let bundle = format!("--new-bundle-format={}", form == Form::Bundle);
        let offline = ["--use-signing-config=false", "--tlog-upload=false", "--yes", PLAIN, &bundle];
        let key = ["--key", text(&key.private)?];
        self.must(&[&["sign"], &key[..], &offline, &[image]].concat()).await
    }

    /// States something else about an image.
    pub async fn attest(&self, image: &str, key: &Key) -> Result<()> {
        let predicate = self.file("predicate.json");
        fs::write(&predicate, "{}").context("write a predicate")?;
        let offline = ["--use-signing-config=false", "--tlog-upload=false", "--yes", PLAIN];
        let what =
            ["attest", "--key", text(&key.private)?, "--type", "custom", "--predicate", text(&predicate)?];
        self.must(&[&what[..], &offline, &[image]].concat()).await
    }

    /// Copies an image with its signatures.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.must(&["copy", PLAIN, from, to]).await
    }

    /// Whether the program takes an image for signed.
    pub async fn accepts(&self, image: &str, key: &Key) -> Result<bool> {
        let hash = if key.kind == Kind::P384 { "sha384" } else { "sha256" };
        let key = ["--key", text(&key.public)?, "--signature-digest-algorithm", hash];
        let arguments = [&["verify"], &key[..], &["--insecure-ignore-tlog", PLAIN, image]].concat();
        Ok(self.run(&arguments).await?.0)
    }

    async fn must(&self, arguments: &[&str]) -> Result<()> {
        let (succeeded, said) = self.run(arguments).await?;
        ensure!(succeeded, "cosign {}: {said}", arguments.join(" "));
        Ok(())
    }

    async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("HOME", self.folder.path()).env("COSIGN_PASSWORD", "").kill_on_drop(true);
        let output = command.output().await.context("run cosign")?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary folder's name is text")
}

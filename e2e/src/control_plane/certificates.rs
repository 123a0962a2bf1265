//! Keys and certificates: one authority, the API server's certificate, the key that signs service accounts' tokens.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

/// Names by which the API server is reached on loopback, and from inside the cluster (its Service has the first
/// address of the range 10.96.0.0/24).
const NAMES: [&str; 5] =
    ["127.0.0.1", "localhost", "kubernetes.default.svc", "kubernetes.default", "10.96.0.1"];

/// What clients need to know; the files are for the API server.
#[derive(Debug)]
pub struct Certificates {
    pub ca_pem: String,
}

impl Certificates {
    /// Makes everything anew in `folder`.
    pub fn make(folder: &Path, extra_names: &[String]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "evenkeel-e2e");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        write("ca.crt", &ca_pem)?;

        let names: Vec<String> =
            NAMES.iter().map(|name| (*name).to_owned()).chain(extra_names.iter().cloned()).collect();
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let server_key = KeyPair::generate()?;
        let issuer = Issuer::new(authority, authority_key);
        write("server.crt", &server.signed_by(&server_key, &issuer)?.pem())?;
        write("server.key", &server_key.serialize_pem())?;

        let accounts = KeyPair::generate()?;
        write("accounts.key", &accounts.serialize_pem())?;
        write("accounts.pub", &accounts.public_key_pem())?;
        Ok(Self { ca_pem })
    }

    /// A kubeconfig with a token. JSON is YAML.
    pub fn kubeconfig(&self, token: &str, server_url: &str) -> String {
        let ca = base64(self.ca_pem.as_bytes());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "e2e", "cluster": { "server": server_url, "certificate-authority-data": ca } }],
            "users": [{ "name": "e2e", "user": { "token": token } }],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e" } }],
            "current-context": "e2e",
        });
        format!("{config:#}\n")
    }
}

/// `certificate-authority-data` is base64 of the PEM text; Kubernetes' own byte string knows how.
fn base64(bytes: &[u8]) -> String {
    let text = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()));
    text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

//! Mirrors as containerd is told of them: `FOLDER/REGISTRY/hosts.toml`, as its `docs/hosts.md` has it. What is in there
//! and not known here is refused: it was meant to matter.

mod certificates;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    RegistryError,
    endpoint::{Address, Endpoint},
    tls::{ClientFiles, Tls},
};

/// A file with hundreds of mirrors is smaller.
const BYTES_MAX: u64 = 1 << 20;

/// What the files say of one registry.
#[derive(Default)]
pub(crate) struct Hosts {
    /// In the order in which they are asked.
    pub mirrors: Vec<Endpoint>,
    /// The registry itself, if its address is not its name.
    pub server: Option<Endpoint>,
    /// What TLS needs at the registry itself, if its address is its name.
    pub tls: Tls,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    /// In the order of the file.
    #[serde(default)]
    host: Table,
    #[serde(flatten)]
    own: Host,
}

#[derive(Default, Deserialize)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<Ca>,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    skip_verify: bool,
    client: Option<Client>,
    header: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ca {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// Client certificates in all the ways in which they may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(PathBuf),
    Many(Vec<CertificateAndKey>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CertificateAndKey {
    InOne(PathBuf),
    InTwo(PathBuf, PathBuf),
}

/// What the folder says of a registry; nothing if it has no file for it.
pub(crate) fn find(folder: &Path, registry: &str) -> Result<Hosts, RegistryError> {
    for name in names(registry) {
        let folder = folder.join(name);
        let path = folder.join("hosts.toml");
        let failed = |source| RegistryError::Hosts { path: path.clone(), source };
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => return parse(&text.map_err(failed)?, &path, registry).map_err(failed),
        }
        let failed = |source| RegistryError::HostCertificates { path: folder.clone(), source };
        let tls = certificates::find(&folder).map_err(failed)?;
        if tls != Tls::default() {
            return Ok(Hosts { tls, ..Hosts::default() });
        }
    }
    Ok(Hosts::default())
}

/// Names that the folder of a registry may have, best first. Not every file system takes a colon.
fn names(registry: &str) -> Vec<String> {
    let without_colon = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    without_colon.into_iter().chain([registry.to_owned(), "_default".to_owned()]).collect()
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

fn parse(text: &str, path: &Path, registry: &str) -> io::Result<Hosts> {
    let file: File = toml::from_str(text).map_err(io::Error::other)?;
    let mut mirrors = Vec::new();
    for (address, host) in file.host {
        let host: Host = host.try_into().map_err(io::Error::other)?;
        if host.can("pull") {
            let resolves = host.can("resolve");
            mirrors.push(host.endpoint(&address, path)?.standing_for(registry, resolves));
        }
    }
    let server = file.server.filter(|address| !address.is_empty());
    let server = server.map(|address| file.own.endpoint(&address, path)).transpose()?;
    file.own.check(registry)?;
    Ok(Hosts { mirrors, server, tls: file.own.tls(path)? })
}

impl Host {
    /// Whether it may be used for this; one that does not say may be for all.
    fn can(&self, what: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == what))
    }

    fn endpoint(&self, address: &str, file: &Path) -> io::Result<Endpoint> {
        self.check(address)?;
        let whole = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let Address { scheme, host, path } = Address::parse(&whole).map_err(io::Error::other)?;
        let path = match path.as_str() {
            path if self.override_path || path == "v2" || path.ends_with("/v2") => path.to_owned(),
            "" => "v2".to_owned(),
            path => format!("{path}/v2"),
        };
        let mut endpoint = Endpoint::new(scheme, &host, &host).with_api_at(&path);
        endpoint.tls = self.tls(file)?;
        Ok(endpoint)
    }

    /// Refuses what is not done.
    fn check(&self, address: &str) -> io::Result<()> {
        for (name, used) in [("skip_verify", self.skip_verify), ("header", self.header.is_some())] {
            if used {
                return Err(io::Error::other(format!("{name} of {address} is not supported")));
            }
        }
        Ok(())
    }

    fn tls(&self, file: &Path) -> io::Result<Tls> {
        let beside = file.parent().unwrap_or(file);
        let authorities = match &self.ca {
            None => Vec::new(),
            Some(Ca::One(path)) => vec![beside.join(path)],
            Some(Ca::Many(paths)) => paths.iter().map(|path| beside.join(path)).collect(),
        };
        let client = self.client.as_ref().map(|client| client.files(beside)).transpose()?;
        Ok(Tls { authorities, client })
    }
}

impl Client {
    fn files(&self, beside: &Path) -> io::Result<ClientFiles> {
        let in_one = |path: &PathBuf| ClientFiles { certificate: beside.join(path), key: None };
        let all = match self {
            Self::One(path) => return Ok(in_one(path)),
            Self::Many(all) => all,
        };
        let [certificate] = all.as_slice() else {
            let text = format!("`client` has {} certificates: one is supported", all.len());
            return Err(io::Error::other(text));
        };
        Ok(match certificate {
            CertificateAndKey::InOne(path) => in_one(path),
            // As containerd has it, an empty name is that of the certificate.
            CertificateAndKey::InTwo(path, key) if key.as_os_str().is_empty() => in_one(path),
            CertificateAndKey::InTwo(path, key) => {
                ClientFiles { certificate: beside.join(path), key: Some(beside.join(key)) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;

    use super::*;
    use crate::endpoint::Content;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("hosts.toml"), text).unwrap();
        }
        folder
    }

    #[test]
    fn mirrors_are_in_the_order_of_the_file_with_the_paths_that_containerd_makes() {
        let text = r#"
            server = "https://registry-1.docker.io"
            ca = "own.pem"
            [host."http://z.example:5000"]
            [host."a.example/hub"]
              capabilities = ["pull"]
              ca = ["/etc/a.pem", "b.pem"]
            [host."https://push.example"]
              capabilities = ["push"]
            [host."https://m.example/v2/proxy"]
              override_path = true
        "#;
        let folder = folder(&[("docker.io", text)]);
        let hosts = find(folder.path(), "docker.io").unwrap();
        let reference: Reference = "docker.io/library/os:1".parse().unwrap();
        let tag = Content::Manifest("1");
        let found: Vec<_> = hosts
            .mirrors
            .iter()
            .map(|mirror| (mirror.url(&reference, tag), mirror.may_serve(tag), mirror.tls.authorities.len()))
            .collect();
        let url = |start: &str| format!("{start}/library/os/manifests/1?ns=docker.io");
        assert_eq!(
            found,
            [
                (url("http://z.example:5000/v2"), true, 0),
                (url("https://a.example/hub/v2"), false, 2),
                (url("https://m.example/v2/proxy"), true, 0),
            ]
        );
        let beside = folder.path().join("docker.io");
        assert_eq!(hosts.mirrors[1].tls.authorities, [PathBuf::from("/etc/a.pem"), beside.join("b.pem")]);
        let server = hosts.server.unwrap();
        assert_eq!(server.url(&reference, tag), "https://registry-1.docker.io/v2/library/os/manifests/1");
        assert_eq!(server.tls.authorities, [beside.join("own.pem")]);
        assert_eq!(server.host, "registry-1.docker.io");
    }

    #[test]
    fn the_best_folder_is_taken() {
        let host = |name: &str| format!("[host.\"https://{name}.example\"]");
        let texts = ["default", "colon", "words"].map(host);
        let folder =
            folder(&[("_default", &texts[0]), ("r.example:1", &texts[1]), ("r.example_2_", &texts[2])]);
        for (registry, expected) in [
            ("r.example:1", "colon.example"),
            ("r.example:2", "words.example"),
            ("r.example", "default.example"),
        ] {
            let hosts = find(folder.path(), registry).unwrap();
            assert_eq!(hosts.mirrors[0].host, expected, "{registry}");
        }
        assert!(find(Path::new("/nowhere"), "r.example").unwrap().mirrors.is_empty());
    }

    #[test]
    fn a_client_certificate_is_one_file_or_two_and_lies_beside_the_file_that_names_it() {
        for (text, certificate, key) in [
            ("\"me.pem\"", "me.pem", None),
            ("[\"/etc/me.pem\"]", "/etc/me.pem", None),
            ("[[\"me.cert\", \"\"]]", "me.cert", None),
            ("[[\"me.cert\", \"/run/me.key\"]]", "me.cert", Some("/run/me.key")),
        ] {
            let whole = format!("client = {text}\n[host.\"https://m.example\"]\nclient = {text}");
            let folder = folder(&[("r.example", &whole)]);
            let hosts = find(folder.path(), "r.example").unwrap();
            let beside = |path: &str| folder.path().join("r.example").join(path);
            let expected = ClientFiles { certificate: beside(certificate), key: key.map(beside) };
            assert_eq!(hosts.mirrors[0].tls.client.as_ref(), Some(&expected), "{text}");
            assert_eq!(hosts.tls.client, Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_safe_is_refused_with_the_name_of_the_file() {
        for (text, word) in [
            ("[host", "expected"),
            ("[host.\"https://m.example\"]\nskip_verify = true", "skip_verify"),
            ("[host.\"https://m.example\"]\nclient = [[\"a\", \"b\"], [\"c\", \"\"]]", "2 certificates"),
            ("[host.\"https://m.example\"]\nclient = [[\"a\", \"b\", \"c\"]]", "client"),
            ("skip_verify = true", "skip_verify of r.example"),
            ("[host.\"https://m.example\".header]\nx = \"y\"", "header"),
            ("[host.\"ftp://m.example\"]", "ftp://m.example"),
            ("server = \"https://u:p@m.example\"", "u:p@m.example"),
        ] {
            let folder = folder(&[("_default", text)]);
            let Err(error) = find(folder.path(), "r.example") else { panic!("{text}") };
            assert_eq!((error.reason(), error.retryable()), ("InvalidMirror", false), "{error}");
            let RegistryError::Hosts { path, source } = error else { panic!("{error}") };
            assert!(path.starts_with(folder.path()) && source.to_string().contains(word), "{text}: {source}");
        }
    }
}

//! Credentials for registries, from a Docker `config.json`. Read again for each use: a mounted secret changes while we
//! run.

use std::{collections::BTreeMap, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::RegistryError;

/// A file with thousands of registries is smaller.
const BYTES_MAX: u64 = 1 << 20;
/// What Docker Hub is called, and the key under which Docker keeps its credentials.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
}

#[derive(Default, Deserialize)]
struct Login {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    registrytoken: String,
    #[serde(default)]
    identitytoken: String,
}

/// The credentials for a repository; `None` when there are none for it, or no file.
pub(crate) fn find(
    path: &Path,
    registry: &str,
    repository: &str,
) -> Result<Option<RegistryAuth>, RegistryError> {
    let failed = |source| RegistryError::Credentials { path: path.to_owned(), source };
    let bytes = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    let best = config
        .auths
        .into_iter()
        .filter_map(|(key, auth)| Some((match_length(&key, registry, repository)?, auth)))
        .max_by_key(|(length, _)| *length);
    best.map_or(Ok(None), |(_, auth)| auth.credentials().map_err(failed))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    fs::read(path)
}

/// How much of a repository's name a key names; `None` if it names something else.
fn match_length(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    // `https://index.docker.io/v1/` and its like name the registry as a whole.
    let path = match path.trim_end_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let hub = DOCKER_HUB.contains(&host) && DOCKER_HUB.contains(&registry);
    if !hub && !host_matches(host, registry) {
        return None;
    }
    let inside = repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (path.is_empty() || inside).then_some(host.len() + path.len())
}

/// Whether a host pattern names a host: `*` stands for one label, or a part of one.
fn host_matches(pattern: &str, host: &str) -> bool {
    let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, host) = (labels(pattern), labels(host));
    pattern.len() == host.len()
        && pattern.iter().zip(&host).all(|(pattern, label)| label_matches(pattern, label))
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(label),
        Some((start, end)) => {
            label.len() >= start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
    }
}

impl Login {
    fn credentials(self) -> io::Result<Option<RegistryAuth>> {
        let Self { auth, username, password, registrytoken, identitytoken } = self;
        if !registrytoken.is_empty() {
            return Ok(Some(RegistryAuth::Bearer(registrytoken)));
        }
        if !identitytoken.is_empty() {
            return Err(io::Error::other(
                "`identitytoken` is a way to log in that is not supported; give a user name and a password",
            ));
        }
        if !username.is_empty() {
            return Ok(Some(RegistryAuth::Basic(username, password)));
        }
        if auth.is_empty() {
            return Ok(None);
        }
        let pair = STANDARD.decode(auth.trim()).map_err(io::Error::other)?;
        let pair = String::from_utf8(pair).map_err(io::Error::other)?;
        let (username, password) =
            pair.split_once(':').ok_or_else(|| io::Error::other("`auth` does not hold USER:PASSWORD"))?;
        // Docker itself pads what it writes.
        Ok(Some(RegistryAuth::Basic(username.to_owned(), password.trim_matches('\0').to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
        "r.example:5000": {"username": "whole", "password": "p"},
        "r.example:5000/team/os": {"username": "team", "password": "p"},
        "*.cloud.example": {"registrytoken": "t"},
        "old.example": {"auth": "dXNlcjo=", "identitytoken": "t"},
        "broken.example": {"auth": "%%%"}
    }, "credsStore": "ignored"}"#;

    fn found(registry: &str, repository: &str) -> Option<RegistryAuth> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, CONFIG).unwrap();
        find(&path, registry, repository).unwrap()
    }

    fn user(name: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(name.into(), password.into())
    }

    #[test]
    fn the_longest_match_wins() {
        for (registry, repository, expected) in [
            ("docker.io", "library/os", Some(user("hub", "pw"))),
            ("r.example:5000", "other", Some(user("whole", "p"))),
            ("r.example:5000", "team/os", Some(user("team", "p"))),
            ("r.example:5000", "team/os/deep", Some(user("team", "p"))),
            ("r.example:5000", "team/osx", Some(user("whole", "p"))),
            ("eu.cloud.example", "x", Some(RegistryAuth::Bearer("t".into()))),
            ("a.eu.cloud.example", "x", None),
            ("r.example", "team/os", None),
        ] {
            assert_eq!(found(registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn a_broken_file_is_named_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(find(&path, "r.example", "x").unwrap().is_none());
        fs::write(&path, CONFIG).unwrap();
        for registry in ["broken.example", "old.example"] {
            let error = find(&path, registry, "x").unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        fs::write(&path, "{").unwrap();
        assert_eq!(find(&path, "r.example", "x").unwrap_err().reason(), "InvalidCredentials");
    }
}

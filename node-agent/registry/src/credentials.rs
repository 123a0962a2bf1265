//! Credentials for registries, from a Docker `config.json`. Read again for each use: a mounted secret changes while we
//! run.

use std::{cmp::Reverse, collections::BTreeMap, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::RegistryError;

/// A file with thousands of registries is smaller.
const BYTES_MAX: u64 = 1 << 20;
/// Logins that are tried at one place: somebody counts failures there.
const LOGINS_MAX: usize = 4;
/// What Docker Hub is called, and the key under which Docker keeps its credentials.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// With a name and a password.
    Password { user: String, password: String },
    /// With an identity token, for which the token server gives others (`docker login` of some clouds writes it).
    Identity(String),
    /// With a token that the registry itself takes.
    Token(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    /// The program that has the credentials of all registries.
    #[serde(default)]
    creds_store: String,
    /// Programs that have those of single ones.
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
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

/// The credentials for a repository, those that name most of it first; none when there are none for it, or no file.
pub(crate) fn find(path: &Path, registry: &str, repository: &str) -> Result<Vec<Login>, RegistryError> {
    let failed = |source| RegistryError::Credentials { path: path.to_owned(), source };
    let bytes = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    find_in(&bytes, registry, repository).map_err(failed)
}

/// The credentials for a repository in a file's bytes.
pub(crate) fn find_in(bytes: &[u8], registry: &str, repository: &str) -> io::Result<Vec<Login>> {
    let config: Config = serde_json::from_slice(bytes)?;
    config.find(registry, repository)
}

impl Config {
    fn find(self, registry: &str, repository: &str) -> io::Result<Vec<Login>> {
        /// What matches, the longest match first.
        fn matching<T>(all: BTreeMap<String, T>, registry: &str, repository: &str) -> Vec<T> {
            let all = all.into_iter();
            let mut found: Vec<_> = all
                .filter_map(|(key, value)| Some((match_length(&key, registry, repository)?, value)))
                .collect();
            found.sort_by_key(|(length, _)| Reverse(*length));
            found.into_iter().map(|(_, value)| value).collect()
        }
        let entries = matching(self.auths, registry, repository);
        let listed = !entries.is_empty();
        let mut logins = Vec::new();
        for login in entries.into_iter().filter_map(|entry| entry.login().transpose()).take(LOGINS_MAX) {
            let login = login?;
            // The same under a second name would be refused a second time.
            if !logins.contains(&login) {
                logins.push(login);
            }
        }
        if !logins.is_empty() {
            return Ok(logins);
        }
        let helper = matching(self.cred_helpers, registry, repository).into_iter().next();
        // Where a program has the credentials, Docker leaves an empty entry.
        let helper = helper.or_else(|| listed.then_some(self.creds_store));
        match helper.filter(|helper| !helper.is_empty()) {
            None => Ok(Vec::new()),
            Some(helper) => Err(io::Error::other(format!(
                "the credentials for {registry} are not in it, but in the program docker-credential-{helper} of the \
                 machine where it was made; programs are not run: write user name and password, or an identity token"
            ))),
        }
    }
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

impl Entry {
    fn login(self) -> io::Result<Option<Login>> {
        let Self { auth, username, password, registrytoken, identitytoken } = self;
        if !registrytoken.is_empty() {
            return Ok(Some(Login::Token(registrytoken)));
        }
        if !identitytoken.is_empty() {
            return Ok(Some(Login::Identity(identitytoken)));
        }
        let (user, password) = if !username.is_empty() {
            (username, password)
        } else if auth.is_empty() {
            return Ok(None);
        } else {
            decode(&auth)?
        };
        // Docker's name for a user who is known by the token alone.
        if user == "<token>" {
            return Ok(Some(Login::Identity(password)));
        }
        Ok(Some(Login::Password { user, password }))
    }
}

fn decode(auth: &str) -> io::Result<(String, String)> {
    let pair = STANDARD.decode(auth.trim()).map_err(io::Error::other)?;
    let pair = String::from_utf8(pair).map_err(io::Error::other)?;
    let (user, password) =
        pair.split_once(':').ok_or_else(|| io::Error::other("`auth` does not hold USER:PASSWORD"))?;
    // Docker itself pads what it writes.
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
        "r.example:5000": {"username": "whole", "password": "p"},
        "r.example:5000/team/os": {"username": "team", "password": "p"},
        "*.cloud.example": {"registrytoken": "t"},
        "us.cloud.example": {"username": "us", "password": "p"},
        "http://us.cloud.example/": {"username": "us", "password": "p"},
        "old.example": {"auth": "dXNlcjo=", "identitytoken": "t"},
        "alone.example": {"auth": "PHRva2VuPjppZA=="},
        "broken.example": {"auth": "%%%"},
        "store.example": {},
        "helped.example/team": {"username": "team", "password": "p"}
    }, "credsStore": "desktop", "credHelpers": {"helped.example": "cloud-login"}, "experimental": "enabled"}"#;

    impl std::fmt::Debug for Login {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self {
                Self::Password { user, password } => write!(f, "{user}:{password}"),
                Self::Identity(token) => write!(f, "identity {token}"),
                Self::Token(token) => write!(f, "token {token}"),
            }
        }
    }

    fn found(registry: &str, repository: &str) -> Vec<Login> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, CONFIG).unwrap();
        find(&path, registry, repository).unwrap()
    }

    fn user(name: &str, password: &str) -> Login {
        Login::Password { user: name.into(), password: password.into() }
    }

    #[test]
    fn the_longest_match_comes_first() {
        for (registry, repository, expected) in [
            ("docker.io", "library/os", vec![user("hub", "pw")]),
            ("r.example:5000", "other", vec![user("whole", "p")]),
            ("r.example:5000", "team/os", vec![user("team", "p"), user("whole", "p")]),
            ("r.example:5000", "team/os/deep", vec![user("team", "p"), user("whole", "p")]),
            ("r.example:5000", "team/osx", vec![user("whole", "p")]),
            ("eu.cloud.example", "x", vec![Login::Token("t".into())]),
            ("us.cloud.example", "x", vec![user("us", "p"), Login::Token("t".into())]),
            ("a.eu.cloud.example", "x", vec![]),
            ("r.example", "team/os", vec![]),
            ("old.example", "x", vec![Login::Identity("t".into())]),
            ("alone.example", "x", vec![Login::Identity("id".into())]),
            ("helped.example", "team/os", vec![user("team", "p")]),
        ] {
            assert_eq!(found(registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn programs_with_credentials_are_named_and_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, CONFIG).unwrap();
        for (registry, program) in [
            ("store.example", "docker-credential-desktop"),
            ("helped.example", "docker-credential-cloud-login"),
        ] {
            let error = find(&path, registry, "x").unwrap_err();
            let RegistryError::Credentials { source, .. } = &error else { panic!("{error}") };
            assert!(source.to_string().contains(program), "{source}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_broken_file_is_named_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(find(&path, "r.example", "x").unwrap().is_empty());
        fs::write(&path, CONFIG).unwrap();
        let error = find(&path, "broken.example", "x").unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        fs::write(&path, "{").unwrap();
        assert_eq!(find(&path, "r.example", "x").unwrap_err().reason(), "InvalidCredentials");
    }
}

//! The HTTP clients: whom they trust, through which proxy they go, and where they let themselves be sent.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy, Response, redirect};

use crate::{RegistryError, RegistryOptions};

/// Registries send us to a store, and that one perhaps to another place.
const REDIRECTS_MAX: usize = 5;
/// A connection with many streams that breaks silently must not hold up each new attempt.
const ALIVE: Duration = Duration::from_secs(15);
/// Signed addresses and tokens are long, and all other headers short.
const HEADER_BYTES_MAX: u32 = 256 << 10;
/// A bundle of all certificates of the web has about 250 kB.
const CA_BYTES_MAX: u64 = 4 << 20;

/// The HTTP clients, one for each set of certificates that single places have.
pub(crate) struct Http {
    options: RegistryOptions,
    known: Mutex<BTreeMap<Vec<PathBuf>, Follower>>,
}

/// A client that lets itself be sent elsewhere, and does not take credentials there.
#[derive(Clone)]
pub(crate) struct Follower {
    pub client: Client,
    /// Whether there is no certificate to trust, so that only plain HTTP can work.
    pub trusts_nobody: bool,
}

impl Http {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let http = Self { options, known: Mutex::default() };
        // What is wrong with the settings is said at once.
        http.follower(&[])?;
        Ok(http)
    }

    /// The client for places whose certificates are from the authorities in these files, or from any other that is
    /// trusted.
    pub(crate) fn follower(&self, ca: &[PathBuf]) -> Result<Follower, RegistryError> {
        // Each change is one insertion, so that a panic elsewhere leaves nothing half done.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = known.get(ca) {
            return Ok(follower.clone());
        }
        let follower = self.build(ca)?;
        known.insert(ca.to_vec(), follower.clone());
        Ok(follower)
    }

    fn build(&self, ca: &[PathBuf]) -> Result<Follower, RegistryError> {
        let extra = certificates(&self.options, ca)?;
        let build = || Ok(builder(&self.options)?.redirect(policy()));
        match build()?.tls_certs_merge(extra.iter().cloned()).build() {
            Ok(client) => Ok(Follower { client, trusts_nobody: false }),
            // A client without certificates is made only when none are looked for.
            Err(_) if extra.is_empty() => {
                let client = build()?.tls_certs_only([]).build().map_err(RegistryError::Client)?;
                Ok(Follower { client, trusts_nobody: true })
            }
            Err(error) => Err(RegistryError::Client(error)),
        }
    }

    /// A client that does not let itself be sent elsewhere: for a request that carries a secret in its body.
    pub(crate) fn steady(&self, ca: &[PathBuf]) -> Result<Client, RegistryError> {
        let builder = builder(&self.options)?.redirect(redirect::Policy::none());
        let builder = if self.follower(ca)?.trusts_nobody {
            builder.tls_certs_only([])
        } else {
            builder.tls_certs_merge(certificates(&self.options, ca)?)
        };
        builder.build().map_err(RegistryError::Client)
    }
}

fn builder(options: &RegistryOptions) -> Result<ClientBuilder, RegistryError> {
    let limits = &options.limits;
    let builder = Client::builder()
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits.connect)
        .read_timeout(limits.idle)
        .http2_keep_alive_interval(ALIVE)
        .http2_keep_alive_timeout(ALIVE)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .referer(false);
    let Some(proxy) = &options.pull.proxy else { return Ok(builder) };
    let wrong = |source| RegistryError::Proxy { url: proxy.url.clone(), source };
    let no_proxy = NoProxy::from_string(&proxy.no_proxy.join(","));
    Ok(builder.proxy(Proxy::all(&proxy.url).map_err(wrong)?.no_proxy(no_proxy)))
}

/// Nobody sends us from TLS to plain HTTP: that is for the user alone to allow.
fn policy() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let secure = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error(io::Error::other("it is a redirect of a redirect, and so on"))
        } else if secure && attempt.url().scheme() != "https" {
            attempt.error(io::Error::other("it is a redirect from https to plain http"))
        } else {
            attempt.follow()
        }
    })
}

fn certificates(options: &RegistryOptions, ca: &[PathBuf]) -> Result<Vec<Certificate>, RegistryError> {
    let mut all = Vec::new();
    if let Some(pem) = &options.pull.ca_bundle {
        all.extend(parse("pull.caBundle", pem.as_bytes())?);
    }
    if let Some(path) = options.ca_file.as_ref().filter(|path| path.exists()) {
        all.extend(parse_file(path)?);
    }
    for path in ca {
        all.extend(parse_file(path)?);
    }
    Ok(all)
}

fn parse_file(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let from = path.display().to_string();
    let pem = read_file(path).map_err(|source| RegistryError::CaBundle { from: from.clone(), source })?;
    parse(&from, &pem)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > CA_BYTES_MAX {
        return Err(io::Error::other("the file is larger than 4 MiB"));
    }
    fs::read(path)
}

fn parse(from: &str, pem: &[u8]) -> Result<Vec<Certificate>, RegistryError> {
    let wrong = |source| RegistryError::CaBundle { from: from.to_owned(), source };
    let found = Certificate::from_pem_bundle(pem).map_err(|error| wrong(io::Error::other(error)))?;
    if found.is_empty() {
        return Err(wrong(io::Error::other("there is no certificate in it")));
    }
    Ok(found)
}

/// Why a body was not read.
pub(crate) enum ReadError {
    TooLarge,
    Network(reqwest::Error),
}

/// The whole body, of which no more than `limit` bytes are ever held.
pub(crate) async fn read(mut response: Response, limit: usize) -> Result<Bytes, ReadError> {
    let promised = response.content_length().unwrap_or(0);
    if promised > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    let mut body = Vec::with_capacity(usize::try_from(promised).unwrap_or(0));
    while let Some(piece) = response.chunk().await.map_err(ReadError::Network)? {
        if body.len() + piece.len() > limit {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

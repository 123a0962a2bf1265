//! The HTTP client: whom they trust, through which proxy they go, and where they let themselves be sent.

use std::{fs, io, path::Path, time::Duration};

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

/// The HTTP client.
pub(crate) struct Http {
    /// Lets itself be sent elsewhere, and does not take credentials there.
    pub follow: Client,
    /// Whether there is no certificate to trust, so that only plain HTTP can work.
    pub trusts_nobody: bool,
}

impl Http {
    pub(crate) fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        let extra = certificates(options)?;
        let build = || Ok(builder(options)?.redirect(policy()));
        let merged = build()?.tls_certs_merge(extra.iter().cloned()).build();
        let (follow, trusts_nobody) = match merged {
            Ok(client) => (client, false),
            // A client without certificates is made only when none are looked for.
            Err(_) if extra.is_empty() => {
                (build()?.tls_certs_only([]).build().map_err(RegistryError::Client)?, true)
            }
            Err(error) => return Err(RegistryError::Client(error)),
        };
        Ok(Self { follow, trusts_nobody })
    }

    /// A client that does not let itself be sent elsewhere: for a request that carries a secret in its body.
    pub(crate) fn steady(&self, options: &RegistryOptions) -> Result<Client, RegistryError> {
        let builder = builder(options)?.redirect(redirect::Policy::none());
        let builder = if self.trusts_nobody {
            builder.tls_certs_only([])
        } else {
            builder.tls_certs_merge(certificates(options)?)
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

fn certificates(options: &RegistryOptions) -> Result<Vec<Certificate>, RegistryError> {
    let mut all = Vec::new();
    if let Some(pem) = &options.pull.ca_bundle {
        all.extend(parse("pull.caBundle", pem.as_bytes())?);
    }
    if let Some(path) = &options.ca_file {
        match read_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            pem => {
                let from = path.display().to_string();
                let pem = pem.map_err(|source| RegistryError::CaBundle { from: from.clone(), source })?;
                all.extend(parse(&from, &pem)?);
            }
        }
    }
    Ok(all)
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

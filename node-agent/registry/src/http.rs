//! The HTTP clients: whom they trust, through which proxy they go, and where they let themselves be sent.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Client, ClientBuilder, NoProxy, Proxy, RequestBuilder, Response, Url, header::CONTENT_TYPE, redirect,
};

use crate::{RegistryError, RegistryOptions, tls::Tls};

/// Registries send us to a store, and that one perhaps to another place.
const REDIRECTS_MAX: usize = 5;
/// A connection with many streams that breaks silently must not hold up each new attempt.
const ALIVE: Duration = Duration::from_secs(15);
/// Signed addresses and tokens are long, and all other headers short.
const HEADER_BYTES_MAX: u32 = 256 << 10;

/// The HTTP clients, one for each set of certificates that single places have.
pub(crate) struct Http {
    options: RegistryOptions,
    known: Mutex<BTreeMap<Tls, Follower>>,
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
        http.follower(&Tls::default())?;
        Ok(http)
    }

    /// The client for places with these certificates.
    pub(crate) fn follower(&self, tls: &Tls) -> Result<Follower, RegistryError> {
        // Each change is one insertion, so that a panic elsewhere leaves nothing half done.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = known.get(tls) {
            return Ok(follower.clone());
        }
        let follower = self.build(tls)?;
        known.insert(tls.clone(), follower.clone());
        Ok(follower)
    }

    fn build(&self, tls: &Tls) -> Result<Follower, RegistryError> {
        let extra = tls.trusted(&self.options)?;
        let build = || Ok(builder(&self.options, tls)?.redirect(policy()));
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
    pub(crate) fn steady(&self, tls: &Tls) -> Result<Client, RegistryError> {
        let builder = builder(&self.options, tls)?.redirect(redirect::Policy::none());
        let builder = if self.follower(tls)?.trusts_nobody {
            builder.tls_certs_only([])
        } else {
            builder.tls_certs_merge(tls.trusted(&self.options)?)
        };
        builder.build().map_err(RegistryError::Client)
    }
}

fn builder(options: &RegistryOptions, tls: &Tls) -> Result<ClientBuilder, RegistryError> {
    let limits = &options.limits;
    let mut builder = Client::builder()
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits.connect)
        .read_timeout(limits.idle)
        .http2_keep_alive_interval(ALIVE)
        .http2_keep_alive_timeout(ALIVE)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .referer(false);
    if let Some(identity) = tls.identity()? {
        builder = builder.identity(identity);
    }
    let Some(proxy) = &options.pull.proxy else { return Ok(builder) };
    let wrong = |source| RegistryError::Proxy { url: proxy.url.clone(), source };
    let no_proxy = NoProxy::from_string(&proxy.no_proxy.join(","));
    Ok(builder.proxy(Proxy::all(&proxy.url).map_err(wrong)?.no_proxy(no_proxy)))
}

tokio::task_local! {
    /// Where the request that is under way was sent last.
    static SENT_TO: RefCell<Option<Url>>;
}

/// Sends a request. A failure comes with the place to which it was sent last: the library does not say it.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response, (reqwest::Error, Option<Url>)> {
    let sent = async { request.send().await.map_err(|error| (error, SENT_TO.with(RefCell::take))) };
    SENT_TO.scope(RefCell::default(), sent).await
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
            // There is nobody to tell where nobody asked.
            let _ = SENT_TO.try_with(|place| place.replace(Some(attempt.url().clone())));
            attempt.follow()
        }
    })
}

/// Whether an answer says that it is a page for people, such as a proxy or a hotel's network gives for anything.
pub(crate) fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
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

//! The library's clients, one per repository: each knows who we are there, and is given up when it is refused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{BlobResponse, ClientConfig, ClientProtocol},
    errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode},
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
    secrets::RegistryAuth,
};

use crate::{RegistryError, RegistryOptions, credentials, patience::Patience};

const MANIFEST_TYPES: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in an answer. A slow registry is no error, one that stopped is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Beginning of a registry's own words that is shown.
const MESSAGE_CHARS_MAX: usize = 200;

pub(crate) struct Clients {
    options: RegistryOptions,
    /// By repository, with its registry: credentials may differ for each.
    known: Mutex<BTreeMap<String, Client>>,
}

impl Clients {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let clients = Self { options, known: Mutex::default() };
        // Each later one is made like this one, so that what is missing is said at once.
        clients.build()?;
        Ok(clients)
    }

    /// The bytes of a manifest. The library has them in memory before their number is known.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let mut patience = Patience::default();
        loop {
            match self.manifest_once(reference).await {
                Err(error) => patience.bear(error).await?,
                bytes => return bytes,
            }
        }
    }

    async fn manifest_once(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let client = self.client(reference).await?;
        // The client has its credentials already, and ignores these.
        let answer = client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &MANIFEST_TYPES).await;
        answer.map(|(bytes, _)| bytes).map_err(|error| self.failure(reference, error))
    }

    /// A blob's bytes, unchecked, from `from` on if the registry can do that; `None` if it says that it has none there.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        digest: &str,
        from: u64,
    ) -> Result<Option<BlobResponse>, RegistryError> {
        let client = self.client(reference).await?;
        // Given as a digest alone, so that no address elsewhere is followed.
        match client.pull_blob_stream_partial(reference, digest, from, None).await {
            Ok(answer) => Ok(Some(answer)),
            Err(OciDistributionError::ServerError { code: 416, .. }) => Ok(None),
            Err(error) => Err(self.failure(reference, error)),
        }
    }

    async fn client(&self, reference: &Reference) -> Result<Client, RegistryError> {
        if let Some(client) = self.known().get(&repository(reference)) {
            return Ok(client.clone());
        }
        let client = self.build()?;
        let auth = self.credentials(reference)?.unwrap_or(RegistryAuth::Anonymous);
        // Asked for here, because the library keeps to itself why a request has no token.
        let token = client.auth(reference, &auth, RegistryOperation::Pull).await;
        token.map_err(|error| self.failure(reference, error))?;
        self.known().insert(repository(reference), client.clone());
        Ok(client)
    }

    fn build(&self) -> Result<Client, RegistryError> {
        let plain = self.options.plain_http;
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(IDLE_TIMEOUT),
            user_agent: concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(RegistryError::Client)
    }

    fn failure(&self, reference: &Reference, error: OciDistributionError) -> RegistryError {
        use OciDistributionError as Error;
        match error {
            // An address that a registry sends us to may hold a secret.
            Error::RequestError(source) => self.unreachable(reference, source.without_url().into()),
            Error::IoError(_) => self.unreachable(reference, error),
            Error::UnauthorizedError { .. } => self.unauthorized(reference, "401".to_owned()),
            Error::AuthenticationFailure(said) => {
                self.unauthorized(reference, format!("its token server says: {}", beginning(&said)))
            }
            Error::RegistryTokenDecodeError(_) => {
                self.unauthorized(reference, "its token server gives no token".to_owned())
            }
            Error::DigestError(DigestError::VerificationError { expected, actual }) => {
                RegistryError::DigestMismatch {
                    what: format!("the manifest of {}", reference.whole()),
                    expected,
                    actual,
                }
            }
            Error::RegistryError { envelope, url } => {
                self.judge(reference, status(&envelope), &url, &envelope.to_string())
            }
            Error::ServerError { code, url, message } => self.judge(reference, code, &url, &message),
            other => refused(reference, &other.to_string()),
        }
    }

    /// What an answer's status means.
    fn judge(&self, reference: &Reference, status: u16, url: &str, message: &str) -> RegistryError {
        match status {
            404 => RegistryError::NotFound { image: reference.whole() },
            408 | 429 | 500.. => unavailable(reference, status),
            // A signed address of a store has run out: the registry gives a new one.
            400 | 403 if is_elsewhere(url, reference) => unavailable(reference, status),
            403 => self.unauthorized(reference, status.to_string()),
            _ => refused(reference, &format!("{status}: {message}")),
        }
    }

    fn unreachable(&self, reference: &Reference, source: OciDistributionError) -> RegistryError {
        let scheme = if self.options.plain_http { "http" } else { "https" };
        RegistryError::Unreachable { registry: reference.resolve_registry().to_owned(), scheme, source }
    }

    fn unauthorized(&self, reference: &Reference, found: String) -> RegistryError {
        self.known().remove(&repository(reference));
        let remedy = match (&self.options.docker_config, self.credentials(reference)) {
            (_, Err(error)) => return error,
            (Some(path), Ok(Some(_))) => {
                format!("check the user name and the password in {}", path.display())
            }
            (Some(path), Ok(None)) => format!("{} has no credentials for it; add them", path.display()),
            (None, _) => "give credentials for it in a Docker config.json".to_owned(),
        };
        RegistryError::Unauthorized { repository: repository(reference), found, remedy }
    }

    fn credentials(&self, reference: &Reference) -> Result<Option<RegistryAuth>, RegistryError> {
        let Some(path) = &self.options.docker_config else { return Ok(None) };
        credentials::find(path, reference.registry(), reference.repository())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Client>> {
        // Each change is one insertion or removal, so that a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The repository, with its registry.
fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.resolve_registry(), reference.repository())
}

fn unavailable(reference: &Reference, status: u16) -> RegistryError {
    RegistryError::Unavailable { repository: repository(reference), status }
}

fn refused(reference: &Reference, answer: &str) -> RegistryError {
    RegistryError::Refused { repository: repository(reference), answer: beginning(answer) }
}

/// The status that belongs to an error of the protocol, of which the library keeps only the code.
fn status(envelope: &OciEnvelope) -> u16 {
    use OciErrorCode as Code;
    match envelope.errors.first().map(|error| &error.code) {
        Some(Code::BlobUnknown | Code::ManifestUnknown | Code::NameUnknown | Code::NotFound) => 404,
        Some(Code::Toomanyrequests) => 429,
        Some(Code::Unauthorized | Code::Denied) => 403,
        _ => 400,
    }
}

/// Whether an answer came from another host than the registry's own.
fn is_elsewhere(url: &str, reference: &Reference) -> bool {
    let registry = reference.resolve_registry();
    let without_default = registry.strip_suffix(":443").or_else(|| registry.strip_suffix(":80"));
    let host = url.split('/').nth(2).unwrap_or_default();
    ![Some(registry), without_default].into_iter().flatten().any(|known| known.eq_ignore_ascii_case(host))
}

fn beginning(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MESSAGE_CHARS_MAX).collect()
}

//! Calls to the API server: each ends in time, and each failure has a name.

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder};
use tokio::time::timeout;

use crate::metrics::CountRequests;

/// A call takes milliseconds; the longest are lists of pods on a busy server. The client's own retries are within it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is away is noticed before a call's time is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call to the API server did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The object is not what it was when it was read: look again.
    #[error("{what}: the object was changed since it was read")]
    Conflict {
        /// The call and the thing.
        what: String,
    },
    /// The object is not there.
    #[error("{what}: there is no such object")]
    NotFound {
        /// The call and the thing.
        what: String,
    },
    /// No answer came in time.
    #[error("{what}: the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// The call and the thing.
        what: String,
    },
    /// The API server refused, or could not be reached.
    #[error("{what}")]
    Failed {
        /// The call and the thing.
        what: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl ApiError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::NotFound { .. } => "NotFound",
            Self::Timeout { .. } => "Timeout",
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                kube::Error::Api(status) if status.is_invalid() => "Invalid",
                kube::Error::Api(_) => "Refused",
                _ => "Unreachable",
            },
        }
    }

    /// Whether the object changed or went since it was read, so that looking again is all that is needed.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::NotFound { .. })
    }

    /// Whether it is not known if a write was done: no answer came, or one that says that the server gave up on it.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::NotFound { .. } => false,
            Self::Timeout { .. } => true,
            Self::Failed { .. } => self.code().is_none_or(|code| code >= 500),
        }
    }

    /// The HTTP status that the API server answered with, if it did.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Waits for `answer` to `what`, a call and the thing that it is about, but not for ever.
pub async fn call<T>(
    what: impl Into<String>,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    let what = what.into();
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            Err(ApiError::Conflict { what })
        }
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Err(ApiError::NotFound { what }),
        Ok(Err(source)) => Err(ApiError::Failed { what, source: Box::new(source) }),
        Err(_) => Err(ApiError::Timeout { what }),
    }
}

/// An error and what led to it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The clients of the API server.
#[derive(Clone)]
pub struct Clients {
    /// For everything but evictions.
    pub main: Client,
    /// For evictions: a refusal (429) is an answer that names what blocks, not a reason to try again at once.
    pub evictions: Client,
}

impl Clients {
    /// Clients for the cluster that this process runs in, or that KUBECONFIG names; their requests are counted.
    pub async fn connect(requests: &CountRequests) -> anyhow::Result<Self> {
        let mut config = Config::infer().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let main = ClientBuilder::try_from(config.clone())?.with_layer(requests).build();
        config.default_retry = false;
        let evictions = ClientBuilder::try_from(config)?.with_layer(requests).build();
        Ok(Self { main, evictions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn whether_a_write_was_done_is_known_only_by_an_answer() {
        let what = || "write".to_owned();
        let refused = |code| ApiError::Failed {
            what: what(),
            source: Box::new(kube::Error::Api(Box::new(Status { code, ..Status::default() }))),
        };
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let cut = ApiError::Failed { what: what(), source: Box::new(kube::Error::Service(cut.into())) };
        assert!(cut.is_unanswered() && ApiError::Timeout { what: what() }.is_unanswered());
        assert!(refused(500).is_unanswered() && refused(504).is_unanswered(), "the store may have done it");
        assert!(!refused(403).is_unanswered() && !refused(429).is_unanswered());
        assert!(!ApiError::Conflict { what: what() }.is_unanswered());
    }
}

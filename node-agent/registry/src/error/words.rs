//! What others said, in words that may be shown.

use std::{error::Error as _, time::Duration};

use reqwest::Url;

use super::RegistryError;

/// Beginning of a registry's own words that is shown.
const MESSAGE_CHARS_MAX: usize = 200;

/// A place that cannot be reached.
pub(crate) fn unreachable(host: &str, scheme: &'static str, source: reqwest::Error) -> RegistryError {
    RegistryError::Unreachable { registry: host.to_owned(), scheme, source: without_address(source) }
}

/// A place to which a registry sends us.
pub(crate) fn store_unreachable(store: &Url, registry: &str, source: reqwest::Error) -> RegistryError {
    let scheme = if store.scheme() == "https" { "https" } else { "http" };
    let port = store.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = store.host_str().unwrap_or_default();
    unreachable(&format!("{host}{port} (where {registry} sends us)"), scheme, source)
}

/// An address that a registry sends us to may hold a secret.
pub(crate) fn without_address(error: reqwest::Error) -> reqwest::Error {
    error.without_url()
}

/// What was wrong at the bottom of it.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    cause.map_or_else(|| "it redirects in an odd way".to_owned(), ToString::to_string)
}

/// The beginning of what somebody said, on one line.
pub(crate) fn beginning(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

pub(super) fn asked_for(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| format!(", to be asked again in {} s", pause.as_secs()))
}

pub(super) fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

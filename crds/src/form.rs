//! Forms of text that fields must have, each with the words that the API server says otherwise. Patterns in the schema
//! would refuse the same, but all that they say is the pattern.

use kube_core::Rule;

/// `registry/repository:tag`, `registry/repository@sha256:…`, or both; the registry may be absent.
pub(crate) fn image(field: &str) -> Rule {
    matches(
        r"^[a-z0-9.\-]+(:[0-9]+)?(/[a-z0-9._\-]+)*(:[A-Za-z0-9_][A-Za-z0-9._\-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        &format!(
            "{field} must be an image such as registry.example/os:1.2 or registry.example/os@sha256:…: in lower \
             case, without https://, a tag after a colon, a digest of 64 hexadecimal digits"
        ),
    )
}

/// An image that names its registry.
pub(crate) fn image_of_registry(field: &str) -> Rule {
    matches(
        r"^[a-z0-9.\-]+(:[0-9]+)?(/[a-z0-9._\-]+)+(:[A-Za-z0-9_][A-Za-z0-9._\-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        &format!(
            "{field} must name registry and image, such as registry.example/channel:1, without https://"
        ),
    )
}

/// An image that a person names by its digest.
pub(crate) fn pinned(field: &str) -> Rule {
    matches(
        r"^[a-z0-9.\-]+(:[0-9]+)?(/[a-z0-9._\-]+)*(:[A-Za-z0-9_][A-Za-z0-9._\-]{0,127})?@sha256:[0-9a-f]{64}$",
        &format!(
            "{field} must be an image with its digest, such as registry.example/os@sha256:…, without https://"
        ),
    )
}

/// An image whose bytes are fixed.
pub(crate) fn pinned_image() -> Rule {
    matches(
        r"^.+@sha256:[0-9a-f]{64}$",
        "image must have a digest, such as registry.example/os@sha256:…: a tag never reaches a node",
    )
}

/// A repository with its registry, and without a tag.
pub(crate) fn repository(field: &str) -> Rule {
    matches(
        r"^[a-z0-9.\-]+(:[0-9]+)?(/[a-z0-9._\-]+)+$",
        &format!("{field} must be registry and repository, such as registry.example/os, without a tag"),
    )
}

/// A constraint on versions, as far as its letters go.
pub(crate) fn constraint(field: &str) -> Rule {
    matches(
        r"^[0-9A-Za-z.*+<>=~^, \-]+$",
        &format!(
            "{field} must be comparisons such as \">=1.2, <2\", \"^1.4\" or \"~1.4.2\": a comma is an \"and\", and \
             there is no \"or\""
        ),
    )
}

/// The address of a server; no password, no query.
pub(crate) fn address(example: &str, path: bool) -> Rule {
    let rest = if path { r"(/[A-Za-z0-9._\-]+)*/?$" } else { "/?$" };
    matches(
        &format!(r"^https?://([A-Za-z0-9.\-]+|\[[0-9a-f:.]+\])(:[0-9]+)?{rest}"),
        &format!(
            "url must begin with http:// or https:// and be the address of a server, such as {example}, without user, \
             password or query"
        ),
    )
}

/// Certificates in PEM.
pub(crate) fn certificates() -> Rule {
    Rule::new("self.contains('-----BEGIN CERTIFICATE-----')")
        .message("caBundle must be certificates in PEM: text with -----BEGIN CERTIFICATE----- in it, not encoded again")
}

/// An annotation or label with the domain of whoever it belongs to.
pub(crate) fn annotation(field: &str) -> Rule {
    matches(
        r"^[a-z0-9.\-]+/[A-Za-z0-9]([A-Za-z0-9._\-]*[A-Za-z0-9])?$",
        &format!(
            "{field} must be an annotation with a domain before its name, such as storage.example/may-reboot"
        ),
    )
}

/// Texts that are all matched as a whole by a pattern without quotes.
pub(crate) fn all_match(pattern: &str, message: &str) -> Rule {
    debug_assert!(!pattern.contains('\''), "the pattern is put between quotes");
    Rule::new(format!("self.all(text, text.matches(r'{pattern}'))")).message(message)
}

/// A text that is matched as a whole by a pattern without quotes.
pub(crate) fn matches(pattern: &str, message: &str) -> Rule {
    debug_assert!(!pattern.contains('\''), "the pattern is put between quotes");
    Rule::new(format!("self.matches(r'{pattern}')")).message(message)
}

//! Who must have signed an image.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every repository.
pub const EVERY_REPOSITORY: &str = "*";

/// Who must have signed the image, as `cosign sign --key` does. Each rule that names the image's repository must be
/// satisfied; an image whose repository no rule names is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The rules.
    #[schemars(length(min = 1, max = 16))]
    pub rules: Vec<VerificationRule>,
}

/// Which keys must have signed the images of some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.threshold <= size(self.keys)")
    .message("threshold is higher than the number of keys: nothing could ever be signed enough"))]
pub struct VerificationRule {
    /// The repositories, each with its registry: `registry.example/os`, or `registry.example/os/*` for all whose names
    /// begin so, or `*` for every one. Default `*`. The registry of names without one is `docker.io`.
    #[serde(default = "every")]
    #[schemars(length(min = 1, max = 32), inner(length(max = 255)))]
    #[x_kube(validation = crate::form::all_match(r"^(\*|[a-z0-9.\-]+(:[0-9]+)?((/[a-z0-9._\-]+)+(/\*)?|/\*))$",
        "each of repositories must be *, registry and repository without a tag, such as registry.example/os, or all \
         below a name, such as registry.example/os/*"))]
    pub repositories: Vec<String>,
    /// Public keys in PEM, as `cosign public-key` prints them: ECDSA on P-256 or P-384, Ed25519, or RSA.
    #[schemars(length(min = 1, max = 16), inner(length(max = 2048)))]
    #[x_kube(validation = crate::form::all_match(
        r"^\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*$",
        "each of keys must be one public key in PEM, as `cosign public-key` prints it: text from \
         -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"))]
    pub keys: Vec<String>,
    /// How many of the keys must have signed. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub threshold: i32,
}

fn every() -> Vec<String> {
    vec![EVERY_REPOSITORY.to_owned()]
}

fn one() -> i32 {
    1
}

impl Verification {
    /// One of these keys must have signed, whatever the repository.
    pub fn any_of(keys: Vec<String>) -> Self {
        Self { rules: vec![VerificationRule { repositories: every(), keys, threshold: one() }] }
    }
}

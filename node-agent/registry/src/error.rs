//! What can go wrong between a reference and the last byte of its layers.

mod meaning;
mod words;

use std::{io, path::PathBuf, time::Duration};

use oci_spec::distribution::ParseError;

use words::{asked_for, size};
pub(crate) use words::{beginning, innermost, store_unreachable, unreachable, without_address};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The settings make no client.
    #[error("set up the registry client: check the CA certificates that it is to trust")]
    Client(#[source] reqwest::Error),
    /// Without certificates to trust there is only plain HTTP.
    #[error(
        "registry {registry} speaks TLS, and there is no CA certificate to trust: is the package ca-certificates \
         installed, or its bundle in the container? Or give the registry's own CA"
    )]
    NoTrustRoots {
        /// Its name.
        registry: String,
    },
    /// Certificates that are to be trusted cannot be read.
    #[error("read the CA certificates in {from}: it must hold certificates in PEM form, and nothing else")]
    CaBundle {
        /// The file, or the field.
        from: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A certificate that is to say who we are cannot be used.
    #[error(
        "read the client certificate in {}: certificate and key must be there in PEM form, the key without a password",
        path.display()
    )]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A proxy that cannot be one.
    #[error("{url:?} is not the address of a proxy: write http://HOST:PORT or https://HOST:PORT")]
    Proxy {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// A mirror that cannot be one.
    #[error(
        "{url:?} is not the address of a mirror: write https://HOST:PORT or https://HOST:PORT/PATH, without a password"
    )]
    Mirror {
        /// What was given.
        url: String,
    },
    /// A file of containerd's that says where a registry's content can be had cannot be used.
    #[error("read the mirrors in {path}: it must be a hosts.toml as containerd has it")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A folder with a registry's certificates, as Docker has them, cannot be used.
    #[error(
        "read the certificates in {path}: *.crt are authorities, and NAME.cert with NAME.key is who we are"
    )]
    HostCertificates {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The registry's failure, after those of its mirrors.
    #[error("no mirror served ({said}), and then the registry itself did not")]
    Mirrors {
        /// What each mirror said.
        said: String,
        /// What became of asking the registry.
        source: Box<RegistryError>,
    },
    /// Not a reference.
    #[error(
        "{image:?} is not an image reference: write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:…"
    )]
    Reference {
        /// What was given.
        image: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A digest that cannot be checked.
    #[error("the digest {digest:?} of {image} is not a sha256 digest: only those are supported")]
    DigestAlgorithm {
        /// The image.
        image: String,
        /// The digest.
        digest: String,
    },
    /// The registry did not answer.
    #[error(
        "registry {registry} cannot be reached over {scheme}: check its name, the network between, its certificate, \
         and whether it speaks plain HTTP"
    )]
    Unreachable {
        /// Its name.
        registry: String,
        /// `http` or `https`.
        scheme: &'static str,
        /// What the network said.
        source: reqwest::Error,
    },
    /// A document behind an address cannot be had.
    #[error("{url} cannot be fetched ({answer}): check the address")]
    Document {
        /// The address.
        url: String,
        /// What was wrong.
        answer: String,
    },
    /// The registry has no such image.
    #[error("{image} is not in the registry: check repository and tag, or push the image")]
    NotFound {
        /// The image, or one of its parts.
        image: String,
    },
    /// The registry does not let us in.
    #[error("the registry of {repository} does not allow to pull it ({found}): {remedy}")]
    Unauthorized {
        /// The repository, with its registry.
        repository: String,
        /// What it said.
        found: String,
        /// What can be done.
        remedy: String,
    },
    /// The file with credentials cannot be used.
    #[error("read the registry credentials in {path}: it must be a Docker config.json with `auths`")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The registry is there and cannot serve now.
    #[error(
        "{repository} answered {status}{}: it is overloaded or broken, or limits how often it is asked; \
         look at its log",
        asked_for(*.retry_after)
    )]
    Unavailable {
        /// The repository, with its registry.
        repository: String,
        /// What it answered.
        status: u16,
        /// How long it wants to be left alone, if it says so.
        retry_after: Option<Duration>,
    },
    /// The registry answered what the protocol does not have.
    #[error(
        "the registry of {repository} gave an answer that cannot be used ({answer}): is this the address of a registry?"
    )]
    Refused {
        /// The repository, with its registry.
        repository: String,
        /// The beginning of what it answered.
        answer: String,
    },
    /// A layer's download broke, again and again.
    #[error(
        "the download of layer {digest} from registry {registry} broke at byte {at} of {size} and could not be taken \
         up: check the network between, and the registry's log"
    )]
    Interrupted {
        /// The registry's name.
        registry: String,
        /// The layer.
        digest: String,
        /// Bytes that came.
        at: u64,
        /// Bytes that the manifest promises.
        size: u64,
        /// What the network said; absent when the answer just ended.
        source: Option<reqwest::Error>,
    },
    /// The registry holds fewer or more bytes than the manifest says.
    #[error(
        "layer {digest} has {actual} bytes in registry {registry} and {size} in the manifest: it is damaged there; \
         push the image again"
    )]
    Truncated {
        /// The registry's name.
        registry: String,
        /// The layer.
        digest: String,
        /// Bytes that the registry has.
        actual: u64,
        /// Bytes that the manifest promises.
        size: u64,
    },
    /// Other bytes than the digest names.
    #[error(
        "{what} has the digest {actual} and not {expected}: it is damaged in the registry; push the image again"
    )]
    DigestMismatch {
        /// The thing.
        what: String,
        /// Its name.
        expected: String,
        /// What came.
        actual: String,
    },
    /// Other bytes than the digest names, of which a mirror gave some. It is not asked for them again.
    #[error(
        "{what} has the digest {actual}, and some of it is from {mirrors}: the mirror gives wrong bytes, look there; \
         it is passed over for this blob from now on"
    )]
    WrongMirror {
        /// The thing, by its name.
        what: String,
        /// The mirrors.
        mirrors: String,
        /// What came.
        actual: String,
    },
    /// A blob that was put together from parts is not what it should be. Its parts are not asked for again.
    #[error(
        "{what} has the digest {actual} when it is put together from the parts that {registry} gives: it is damaged \
         there, or something between does not know ranges; it is fetched in one piece from now on"
    )]
    WrongParts {
        /// The thing, by its name.
        what: String,
        /// Who gave the parts.
        registry: String,
        /// What came.
        actual: String,
    },
    /// The place does not give parts of a blob, or not this one.
    #[error(
        "registry {registry} does not give bytes {from} to {before} of layer {digest} alone: it does not know ranges"
    )]
    NoParts {
        /// Its name.
        registry: String,
        /// The layer.
        digest: String,
        /// The first byte.
        from: u64,
        /// The byte behind the last.
        before: u64,
    },
    /// A document that is not what it should be.
    #[error("{what} of {image} cannot be used ({detail}): build and push the image again")]
    InvalidManifest {
        /// The image.
        image: String,
        /// The document.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// More than we take of a thing of its kind.
    #[error("{what} is larger than {}, which no such thing should be: look at who pushed it", size(*.limit))]
    TooLarge {
        /// The thing.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// A layer of a kind that we do not take.
    #[error(
        "layer {digest} of {image} has the media type {media_type}, which is not supported: use tar layers, plain or \
         compressed with gzip or zstd, that lie in the registry itself"
    )]
    UnsupportedLayer {
        /// The image.
        image: String,
        /// The layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// An image for other machines.
    #[error(
        "{image} is made for {found} and this machine is {wanted}: build it for {wanted}, or do not select this node"
    )]
    WrongArchitecture {
        /// The image.
        image: String,
        /// What is there.
        found: String,
        /// What is needed.
        wanted: String,
    },
}

//! From what a reference names to the manifest that is wanted: itself, or one that an index has, however deep.

use oci_spec::distribution::Reference;

use crate::{
    Platform, Registry, RegistryError, digest,
    image::{self, Document},
    platform,
    registry::Manifest,
};

/// An index may name indexes; more than this is a circle or a joke.
const INDEX_DEPTH_MAX: usize = 3;
/// Documents that are looked at for one reference: entries that do not say what they are for are looked at one by one.
const LOOKS_MAX: usize = 32;

/// What is wanted.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// An image for a machine.
    For(&'a Platform),
    /// An image, whatever it is for.
    Image,
    /// An artifact, or an image.
    Any,
}

impl Wanted<'_> {
    pub(crate) fn machine(&self) -> Option<&Platform> {
        if let Self::For(machine) = self { Some(machine) } else { None }
    }
}

impl Registry {
    /// The manifest that is wanted of what `image` names; and the digest of what it names.
    pub(crate) async fn find(
        &self,
        image: &str,
        wanted: Wanted<'_>,
    ) -> Result<(Reference, String, Manifest), RegistryError> {
        let reference = image::parse_reference(image)?;
        let mut open = vec![(0, reference.clone())];
        let (mut named, mut first_failure, mut looks) = (None, None, 0);
        while let Some((depth, next)) = open.pop() {
            looks += 1;
            if depth > INDEX_DEPTH_MAX || looks > LOOKS_MAX {
                return Err(image::invalid(&reference, "the index", "it names indexes that name indexes"));
            }
            let is_only = open.is_empty() && first_failure.is_none();
            match self.look_at(&reference, &next, wanted, &mut named, is_only).await {
                Ok(Look::Found(manifest)) => {
                    let named = named.unwrap_or_else(|| manifest.digest.clone());
                    return Ok((reference, named, manifest));
                }
                Ok(Look::Entries(digests)) => {
                    let below = digests.into_iter().rev();
                    open.extend(below.map(|digest| (depth + 1, reference.clone_with_digest(digest))));
                }
                // What may be there later is waited for.
                Err(error) if error.retryable() => return Err(error),
                Err(error) if open.is_empty() => return Err(first_failure.unwrap_or(error)),
                Err(error) => {
                    first_failure.get_or_insert(error);
                }
            }
        }
        unreachable!("each look finds something, opens others, or is the last one and fails")
    }

    /// Looks at one document. The only one that may be it is judged by whoever asked.
    async fn look_at(
        &self,
        reference: &Reference,
        place: &Reference,
        wanted: Wanted<'_>,
        named: &mut Option<String>,
        is_only: bool,
    ) -> Result<Look, RegistryError> {
        let bytes = self.manifest(place).await?;
        let digest = digest::of(&bytes);
        named.get_or_insert_with(|| digest.clone());
        let content = match image::parse_manifest(reference, &bytes)? {
            Document::Manifest(content) => content,
            Document::Index(index) => {
                return platform::choose(reference, &index, wanted.machine()).map(Look::Entries);
            }
        };
        let manifest = Manifest { content, digest };
        if !is_only && !matches!(wanted, Wanted::Any) {
            let config = self.config(reference, &manifest).await?;
            if let Some(machine) = wanted.machine().filter(|machine| config.platform.fits(machine) == 0) {
                return Err(platform::wrong_architecture(reference, &config.platform.to_string(), machine));
            }
        }
        Ok(Look::Found(manifest))
    }
}

/// What a document is.
enum Look {
    /// The manifest that is wanted, as far as it was looked at.
    Found(Manifest),
    /// An index, and the digests of those of its entries that may be wanted, the best first; there is one.
    Entries(Vec<String>),
}

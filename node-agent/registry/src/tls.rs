//! What TLS needs at a place: whose word its certificate may have, and by which certificate we are known there. All of
//! it is PEM.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reqwest::{Certificate, Identity};

use crate::{RegistryError, RegistryOptions};

/// A bundle of all certificates of the web has about 250 kB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// What single places have for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tls {
    /// Files with authorities that the place's certificate may be from, besides those that are trusted everywhere.
    pub authorities: Vec<PathBuf>,
    /// Who we are there.
    pub client: Option<ClientFiles>,
}

/// Where a client's certificate is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientFiles {
    pub certificate: PathBuf,
    /// Its key; absent: in the same file.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// The authorities that are trusted at the place and not everywhere in the world.
    pub(crate) fn trusted(&self, options: &RegistryOptions) -> Result<Vec<Certificate>, RegistryError> {
        let mut all = Vec::new();
        if let Some(pem) = &options.pull.ca_bundle {
            all.extend(parse("pull.caBundle", pem.as_bytes())?);
        }
        if let Some(path) = options.ca_file.as_ref().filter(|path| path.exists()) {
            all.extend(parse_file(path)?);
        }
        for path in &self.authorities {
            all.extend(parse_file(path)?);
        }
        Ok(all)
    }

    /// The certificate and the key that we show.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, RegistryError> {
        self.client.as_ref().map(ClientFiles::identity).transpose()
    }
}

impl ClientFiles {
    fn identity(&self) -> Result<Identity, RegistryError> {
        let wrong = |path: &Path, source| RegistryError::ClientCertificate { path: path.to_owned(), source };
        let mut pem = Vec::new();
        for path in [Some(&self.certificate), self.key.as_ref()].into_iter().flatten() {
            pem.extend(read(path).map_err(|source| wrong(path, source))?);
            pem.push(b'\n');
        }
        Identity::from_pem(&pem).map_err(|error| wrong(&self.certificate, io::Error::other(error)))
    }
}

fn parse_file(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let from = path.display().to_string();
    let pem = read(path).map_err(|source| RegistryError::CaBundle { from: from.clone(), source })?;
    parse(&from, &pem)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > PEM_BYTES_MAX {
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

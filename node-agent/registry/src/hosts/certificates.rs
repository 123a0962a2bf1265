//! Certificates beside each other in a registry's folder, as Docker has them in `/etc/docker/certs.d` ("Verify
//! repository client with certificates"): `*.crt` are authorities, `NAME.cert` and `NAME.key` are who we are.
//! containerd reads them where there is no `hosts.toml`.

use std::{fs, io, path::Path};

use crate::tls::{ClientFiles, Tls};

/// A folder with more is none of a registry's certificates.
const FILES_MAX: usize = 1000;

/// What a folder has; nothing if it is not there.
pub(super) fn find(folder: &Path) -> io::Result<Tls> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tls::default()),
        entries => entries?,
    };
    let mut paths = entries.take(FILES_MAX).map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let with = |end: &str| {
        paths.iter().filter(|path| path.extension().is_some_and(|found| found == end)).cloned().collect()
    };
    let (authorities, certificates, keys): (_, Vec<_>, Vec<_>) = (with("crt"), with("cert"), with("key"));
    if let Some(key) = keys.iter().find(|key| !certificates.contains(&key.with_extension("cert"))) {
        let hint = "a certificate for it ends in .cert, and one that ends in .crt is an authority's";
        return Err(io::Error::other(format!("{} is a key without a certificate: {hint}", key.display())));
    }
    let client = match certificates.as_slice() {
        [] => None,
        [one] => Some(one),
        [one, other, ..] => return Err(several(one, other)),
    };
    if let Some(certificate) = client.filter(|certificate| !keys.contains(&certificate.with_extension("key")))
    {
        return Err(io::Error::other(format!("{} has no key beside it", certificate.display())));
    }
    let files = |certificate: &std::path::PathBuf| ClientFiles {
        certificate: certificate.clone(),
        key: Some(certificate.with_extension("key")),
    };
    Ok(Tls { authorities, client: client.map(files) })
}

fn several(one: &Path, other: &Path) -> io::Error {
    io::Error::other(format!(
        "there are two client certificates, {} and {}: only one is supported",
        one.display(),
        other.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn files_are_told_apart_by_their_ends() {
        let folder = folder(&["b.crt", "a.crt", "me.cert", "me.key", "README"]);
        let found = find(folder.path()).unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(found.authorities, [path("a.crt"), path("b.crt")]);
        let client = found.client.unwrap();
        assert_eq!((client.certificate, client.key), (path("me.cert"), Some(path("me.key"))));
        assert_eq!(find(Path::new("/nowhere")).unwrap(), Tls::default());
    }

    #[test]
    fn halves_and_doubles_are_refused() {
        for (names, word) in [
            (&["me.key", "me.crt"][..], "without a certificate"),
            (&["me.cert"], "no key"),
            (&["a.cert", "a.key", "b.cert", "b.key"], "two client certificates"),
        ] {
            let error = find(folder(names).path()).unwrap_err().to_string();
            assert!(error.contains(word), "{names:?}: {error}");
        }
    }
}

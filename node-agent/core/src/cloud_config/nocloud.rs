//! cloud-init's `NoCloud` data source: a small file system of a known label, with the files `user-data` and `meta-data`
//! (<https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>).

use serde::Deserialize;

use super::step::is_host_name;

/// The cloud-config.
pub const USER_DATA: &str = "user-data";
/// What the machine is called.
pub const META_DATA: &str = "meta-data";
/// A `meta-data` with more is not read.
pub const META_DATA_BYTES_MAX: usize = 64 << 10;
/// Bytes from a device's start that [`file_system`] needs.
pub const START_BYTES: usize = 34 << 10;
const LABELS: [&str; 2] = ["cidata", "CIDATA"];
/// In ISO 9660 (ECMA-119, 8.4): the first volume descriptor, its type and identifier, and the volume's identifier in it.
const DESCRIPTOR: usize = 32 << 10;
const PRIMARY: &[u8] = b"\x01CD001";
const VOLUME: std::ops::Range<usize> = 40..72;
/// Ends a boot sector; and where one of FAT says which it is, with 12 or 16 bits and with 32.
const BOOT_SIGNATURE: (usize, &[u8]) = (510, &[0x55, 0xAA]);
const FAT: [usize; 2] = [54, 82];

/// What a device may hold that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// FAT, whose label a library tells.
    Fat,
    /// ISO 9660 with one of the labels.
    Iso,
}

/// What the first bytes of a device say.
pub fn file_system(start: &[u8]) -> Option<FileSystem> {
    let has = |at: usize, bytes: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    if has(DESCRIPTOR, PRIMARY) {
        let volume = start.get(DESCRIPTOR..)?.get(VOLUME)?;
        return str::from_utf8(volume).is_ok_and(is_label).then_some(FileSystem::Iso);
    }
    let (at, signature) = BOOT_SIGNATURE;
    (has(at, signature) && FAT.iter().any(|at| has(*at, b"FAT"))).then_some(FileSystem::Fat)
}

/// Whether a label, with the blanks behind it, is one of this data source.
pub fn is_label(label: &str) -> bool {
    LABELS.contains(&label.trim_end())
}

/// What is read of `meta-data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MetaData {
    /// The machine's host name.
    pub local_hostname: Option<String>,
    /// Which machine was meant, in its maker's words.
    pub instance_id: Option<String>,
}

/// Why nothing of `meta-data` is used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetaDataError {
    /// Too much.
    #[error("it has {0} bytes, and {META_DATA_BYTES_MAX} at most are read")]
    TooLarge(usize),
    /// Neither YAML nor JSON.
    #[error("it cannot be used: {0}")]
    Format(String),
    /// A name that no machine can have.
    #[error("{0:?} is not a host name")]
    HostName(String),
}

impl MetaData {
    /// Reads it. Other keys are left out: a document says the same.
    pub fn parse(text: &str) -> Result<Self, MetaDataError> {
        if text.len() > META_DATA_BYTES_MAX {
            return Err(MetaDataError::TooLarge(text.len()));
        }
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let data: Self =
            serde_saphyr::from_str(text).map_err(|error| MetaDataError::Format(error.to_string()))?;
        match data.local_hostname.as_ref().filter(|name| !is_host_name(name)) {
            Some(name) => Err(MetaDataError::HostName(name.clone())),
            None => Ok(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iso(volume: &str) -> Vec<u8> {
        let mut start = vec![0; START_BYTES];
        start[DESCRIPTOR..DESCRIPTOR + PRIMARY.len()].copy_from_slice(PRIMARY);
        start[DESCRIPTOR..][VOLUME].fill(b' ');
        start[DESCRIPTOR + VOLUME.start..][..volume.len()].copy_from_slice(volume.as_bytes());
        start
    }

    #[test]
    fn file_systems_are_known_by_their_first_bytes() {
        for (label, expected) in [
            ("cidata", Some(FileSystem::Iso)),
            ("CIDATA", Some(FileSystem::Iso)),
            ("cidata2", None),
            ("Debian", None),
        ] {
            assert_eq!(file_system(&iso(label)), expected, "{label}");
        }
        assert_eq!(file_system(&iso("cidata")[..DESCRIPTOR + 50]), None);
        let mut fat = vec![0; 512];
        fat[510..].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(file_system(&fat), None, "a boot sector with partitions");
        fat[82..87].copy_from_slice(b"FAT32");
        assert_eq!(file_system(&fat), Some(FileSystem::Fat));
        assert!(is_label("CIDATA     ") && !is_label("CiData") && !is_label(""));
    }

    #[test]
    fn meta_data_is_yaml_or_json_and_two_keys_of_it_count() {
        let data = |host: Option<&str>, id: Option<&str>| {
            Ok(MetaData { local_hostname: host.map(String::from), instance_id: id.map(String::from) })
        };
        for (text, expected) in [
            ("instance-id: iid-7\nlocal-hostname: node-7\n", data(Some("node-7"), Some("iid-7"))),
            (r#"{"instance-id": "iid-7", "public-keys": ["k"], "n": {"m": []}}"#, data(None, Some("iid-7"))),
            ("instance-id: 7\n", data(None, Some("7"))),
            ("", data(None, None)),
            ("# nothing\n\n", data(None, None)),
        ] {
            assert_eq!(MetaData::parse(text), expected, "{text}");
        }
        let error = |text: &str| MetaData::parse(text).unwrap_err();
        assert_eq!(error("local-hostname: 'a b'"), MetaDataError::HostName("a b".into()));
        assert_eq!(error("local-hostname: ../etc"), MetaDataError::HostName("../etc".into()));
        assert!(matches!(error("local-hostname: ["), MetaDataError::Format(_)));
        assert!(matches!(error("a text"), MetaDataError::Format(_)));
        assert_eq!(
            error(&" ".repeat(META_DATA_BYTES_MAX + 1)),
            MetaDataError::TooLarge(META_DATA_BYTES_MAX + 1)
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_and_nothing_worse(bytes in prop::collection::vec(any::<u8>(), 0..1000), text: String) {
            let _ = file_system(&bytes);
            let _ = MetaData::parse(&text);
            let _ = MetaData::parse(&format!("local-hostname: {text}"));
        }
    }
}

//! GRUB's environment block: a file of 1024 bytes that GRUB itself can overwrite in its place.
//!
//! Format (GRUB manual, "The GRUB environment block"; `grub-core/lib/envblk.c`): the line `# GRUB Environment Block`, then
//! `name=value` lines in which a backslash and a line end are preceded by a backslash, then `#` up to the end. Our own
//! variables come first: a disk writes 512 bytes as a whole, and all that decides a boot lies within them.

use std::fmt::Write as _;

/// Bytes of the block.
pub const LENGTH: usize = 1024;
const HEADER: &str = "# GRUB Environment Block\n";
/// Variables that decide a boot; each is there even when it is empty, so that their places never change.
const OURS: [&str; 6] =
    ["saved_entry", "evenkeel_trial", "evenkeel_tries", "evenkeel_given", "evenkeel_loader", "next_entry"];
/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// The variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrubEnv(Vec<(String, String)>);

/// Why bytes are not a block, or variables do not fit one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GrubEnvError {
    /// Not a block.
    #[error(
        "it is not a GRUB environment block of {LENGTH} bytes: make it anew with `grub-editenv FILE create`"
    )]
    NotABlock,
    /// Too much in it.
    #[error(
        "GRUB's environment block has no room for {0} bytes: remove variables that are not needed from it"
    )]
    TooLarge(usize),
}

impl GrubEnv {
    /// Reads a block.
    pub fn decode(bytes: &[u8]) -> Result<Self, GrubEnvError> {
        let text = bytes.strip_prefix(HEADER.as_bytes()).filter(|_| bytes.len() == LENGTH);
        let mut rest = text.ok_or(GrubEnvError::NotABlock)?;
        let mut variables = Vec::new();
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            rest = after;
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                variables.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Self(variables))
    }

    /// Writes a block.
    pub fn encode(&self) -> Result<[u8; LENGTH], GrubEnvError> {
        let mut text = HEADER.to_owned();
        let others = self.0.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        let ours = OURS.iter().map(|name| (*name, self.get(name).unwrap_or_default()));
        for (name, value) in ours.chain(others.map(|(name, value)| (name.as_str(), value.as_str()))) {
            let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
            writeln!(text, "{name}={value}").expect("writing to a string cannot fail");
            if OURS.contains(&name) && text.len() > SECTOR {
                return Err(GrubEnvError::TooLarge(text.len()));
            }
        }
        if text.len() > LENGTH {
            return Err(GrubEnvError::TooLarge(text.len()));
        }
        let mut block = [b'#'; LENGTH];
        block[..text.len()].copy_from_slice(text.as_bytes());
        Ok(block)
    }

    /// A variable; `None` when it is not there or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

/// A line without its escapes, and what follows it.
fn split_line(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut line = Vec::new();
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        index += 1;
        match (byte, bytes.get(index)) {
            (b'\\', Some(&next)) => {
                line.push(next);
                index += 1;
            }
            (b'\n', _) => break,
            _ => line.push(byte),
        }
    }
    (line, &bytes[index..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn variables_of_others_stay() {
        let mut text = b"# GRUB Environment Block\nkernelopts=a=b \\\\ c\nsaved_entry=x\n".to_vec();
        text.resize(LENGTH, b'#');
        let mut env = GrubEnv::decode(&text).unwrap();
        assert_eq!((env.get("kernelopts"), env.get("saved_entry")), (Some("a=b \\ c"), Some("x")));
        env.set("evenkeel_tries", "3");
        let again = GrubEnv::decode(&env.encode().unwrap()).unwrap();
        assert_eq!((again.get("kernelopts"), again.get("evenkeel_tries")), (Some("a=b \\ c"), Some("3")));
        assert_eq!(GrubEnv::decode(&text[1..]), Err(GrubEnvError::NotABlock));
        env.set("kernelopts", &"x".repeat(1000));
        assert!(matches!(env.encode(), Err(GrubEnvError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn what_decides_a_boot_is_written_as_a_whole(tries in "[0-3]", trial in "[a-h]?", other in "[a-z\\\\\n]{0,300}") {
            let mut env = GrubEnv::default();
            env.set("other", &other);
            let before = env.encode().unwrap();
            env.set("evenkeel_trial", &trial);
            env.set("evenkeel_tries", &tries);
            env.set("saved_entry", "evenkeel-a");
            env.set("evenkeel_loader", &format!("asked:{}", "0".repeat(32)));
            let after = env.encode().unwrap();
            let read = GrubEnv::decode(&after).unwrap();
            prop_assert_eq!(read.get("evenkeel_tries"), Some(tries.as_str()));
            prop_assert_eq!(read.get("other").unwrap_or_default(), other.as_str());
            // Either half of a torn write is a block that holds our variables as a whole.
            let torn = [&after[..SECTOR], &before[SECTOR..]].concat();
            let torn = GrubEnv::decode(&torn).unwrap();
            prop_assert_eq!(torn.get("saved_entry"), Some("evenkeel-a"));
        }

        #[test]
        fn nothing_from_outside_panics(mut bytes: Vec<u8>) {
            bytes.splice(0..0, HEADER.bytes());
            bytes.resize(LENGTH, b'#');
            let _ = GrubEnv::decode(&bytes);
        }
    }
}

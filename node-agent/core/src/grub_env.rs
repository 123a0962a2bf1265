//! GRUB's environment block: a file of 1024 bytes that GRUB itself can overwrite in its place.
//!
//! Format (GRUB manual, "The GRUB environment block"; `grub-core/lib/envblk.c`): the line `# GRUB Environment Block`,
//! then `name=value` lines in which a backslash and a line end are preceded by a backslash, then `#` up to the end. Our
//! own variables come first: a disk writes 512 bytes as a whole, and all that decides a boot lies within them.

/// Bytes of the block.
pub const LENGTH: usize = 1024;
const HEADER: &str = "# GRUB Environment Block\n";
/// Variables that decide a boot; each is there even when it is empty, so that their places never change.
const OURS: [&str; 6] =
    ["saved_entry", "evenkeel_trial", "evenkeel_tries", "evenkeel_given", "evenkeel_loader", "next_entry"];
/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// The variables, as bytes: those of others need not be text. Each name is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrubEnv(Vec<(Vec<u8>, Vec<u8>)>);

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
    /// Reads a block as GRUB does: a name goes up to its `=`, and a value that does not end inside of the block is
    /// none. Of a name that is there twice the last counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, GrubEnvError> {
        let text = bytes.strip_prefix(HEADER.as_bytes()).filter(|_| bytes.len() == LENGTH);
        let mut rest = text.ok_or(GrubEnvError::NotABlock)?;
        let mut env = Self::default();
        while !rest.is_empty() {
            if rest[0] == b'#' {
                rest = split_line(rest).map_or(&[], |(_, behind)| behind);
                continue;
            }
            let Some(end) = rest.iter().position(|byte| *byte == b'=') else { break };
            let Some((value, behind)) = split_line(&rest[end + 1..]) else { break };
            env.put(&rest[..end], value);
            rest = behind;
        }
        Ok(env)
    }

    /// Writes a block.
    pub fn encode(&self) -> Result<[u8; LENGTH], GrubEnvError> {
        let mut text = HEADER.as_bytes().to_vec();
        for name in OURS {
            append(&mut text, name.as_bytes(), self.value(name.as_bytes()).unwrap_or_default());
        }
        if text.len() > SECTOR {
            return Err(GrubEnvError::TooLarge(text.len()));
        }
        let others = self.0.iter().filter(|(name, _)| OURS.iter().all(|ours| ours.as_bytes() != name));
        others.for_each(|(name, value)| append(&mut text, name, value));
        if text.len() > LENGTH {
            return Err(GrubEnvError::TooLarge(text.len()));
        }
        let mut block = [b'#'; LENGTH];
        block[..text.len()].copy_from_slice(&text);
        Ok(block)
    }

    /// A variable; `None` when it is not there, empty, or no text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.value(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok());
        value.filter(|value| !value.is_empty())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.put(name.as_bytes(), value.as_bytes().to_vec());
    }

    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    fn put(&mut self, name: &[u8], value: Vec<u8>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_vec(), value)),
        }
    }
}

/// A variable's line.
fn append(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend([name, b"="].concat());
    for byte in value {
        if matches!(byte, b'\\' | b'\n') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'\n');
}

/// What is before the end of the line, without its escapes, and what is behind; `None` when the line has no end.
fn split_line(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut line = Vec::new();
    let mut index = 0;
    loop {
        let mut byte = *bytes.get(index)?;
        if byte == b'\n' {
            return Some((line, &bytes[index + 1..]));
        }
        if byte == b'\\' {
            index += 1;
            byte = *bytes.get(index)?;
        }
        line.push(byte);
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[u8]) -> GrubEnv {
        let mut block = [HEADER.as_bytes(), lines].concat();
        block.resize(LENGTH, b'#');
        GrubEnv::decode(&block).unwrap()
    }

    #[test]
    fn variables_of_others_stay() {
        let mut env = of(b"kernelopts=a=b \\\\ c\nsaved_entry=x\n");
        assert_eq!((env.get("kernelopts"), env.get("saved_entry")), (Some("a=b \\ c"), Some("x")));
        env.set("evenkeel_tries", "3");
        let again = GrubEnv::decode(&env.encode().unwrap()).unwrap();
        assert_eq!((again.get("kernelopts"), again.get("evenkeel_tries")), (Some("a=b \\ c"), Some("3")));
        assert_eq!(GrubEnv::decode(&env.encode().unwrap()[1..]), Err(GrubEnvError::NotABlock));
        let odd: [(&[u8], &[u8], &[u8]); 4] = [
            (b"other=\xff\n", b"other", b"\xff"),
            // A backslash in a name is no escape.
            (b"saved_entry\\=b\n", b"saved_entry\\", b"b"),
            (b"other=1\nother=2\n", b"other", b"2"),
            (b"two\nlines=1\n", b"two\nlines", b"1"),
        ];
        for (lines, name, value) in odd {
            let again = GrubEnv::decode(&of(lines).encode().unwrap()).unwrap();
            let shown = lines.escape_ascii();
            assert_eq!((again.value(name), again.get("saved_entry")), (Some(value), None), "{shown}");
        }
        assert_eq!(of(b"saved_entry=never ends").get("saved_entry"), None);
        env.set("kernelopts", &"x".repeat(1000));
        assert!(matches!(env.encode(), Err(GrubEnvError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn what_decides_a_boot_is_written_as_a_whole(
            tries in "[0-3]",
            trial in "[a-h]?",
            other in "[a-z\\\\\n]{0,300}",
        ) {
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
        fn what_others_wrote_comes_through(
            lines in proptest::collection::vec(proptest::sample::select(&b"ab=\\\n#\xff"[..]), 0..60),
        ) {
            let env = of(&lines);
            let again = GrubEnv::decode(&env.encode().unwrap()).unwrap();
            for (name, value) in &env.0 {
                prop_assert_eq!(again.value(name), Some(value.as_slice()));
            }
        }
    }
}

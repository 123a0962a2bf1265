//! The 64-byte inode (`struct erofs_inode_extended`) and the extended attributes behind it.

use super::{ErofsError, INODE, Place};
use crate::tree::{Attributes, Inode, Kind};

const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
/// Bytes before the first attribute: filter, count of shared attributes, reserved.
const XATTR_HEADER: usize = 12;
/// Bytes of an attribute's whole name, as the kernel has it.
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Prefixes that are kept as a number, with something behind them.
const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
/// Names that are kept as a number.
const NAMES: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];

/// The attributes as they follow the inode; empty when there are none.
pub fn encode_xattrs(attributes: &Attributes) -> Result<Vec<u8>, ErofsError> {
    if attributes.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut body = vec![0; XATTR_HEADER];
    for (name, value) in &attributes.xattrs {
        let refused = || ErofsError::Xattr(String::from_utf8_lossy(name).into_owned());
        let (index, suffix) = encode_name(name).ok_or_else(refused)?;
        body.push(u8::try_from(suffix.len()).map_err(|_| refused())?);
        body.push(index);
        body.extend(u16::try_from(value.len()).map_err(|_| refused())?.to_le_bytes());
        body.extend(suffix);
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    if xattr_count(&body) > usize::from(u16::MAX) {
        return Err(ErofsError::Xattr("(all of them together)".into()));
    }
    Ok(body)
}

/// An attribute's name as the number of its prefix and what is behind that.
fn encode_name(name: &[u8]) -> Option<(u8, &[u8])> {
    if let Some((_, index)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some((*index, b""));
    }
    let (prefix, index) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))?;
    let suffix = &name[prefix.len()..];
    let sound = !suffix.is_empty() && name.len() <= XATTR_NAME_BYTES_MAX && !suffix.contains(&0);
    sound.then_some((*index, suffix))
}

fn xattr_count(body: &[u8]) -> usize {
    if body.is_empty() { 0 } else { (body.len() - XATTR_HEADER) / 4 + 1 }
}

/// The inode with its attributes, which are encoded already.
pub fn encode(inode: &Inode, place: &Place, xattrs: &[u8], links: u32, number: u64) -> Vec<u8> {
    let attributes = &inode.attributes;
    let (kind, length, address) = match &inode.kind {
        Kind::Directory(_) => (0o040_000, place.length as u64, place.block),
        Kind::File { block, length } => (0o100_000, *length, *block),
        Kind::Symlink(_) => (0o120_000, place.length as u64, place.block),
        Kind::CharDevice(major, minor) => (0o020_000, 0, device(*major, *minor)),
        Kind::BlockDevice(major, minor) => (0o060_000, 0, device(*major, *minor)),
        Kind::Fifo => (0o010_000, 0, 0),
    };
    let layout = if place.inline { LAYOUT_INLINE } else { LAYOUT_PLAIN };
    let count = u16::try_from(xattr_count(xattrs)).expect("encode_xattrs refuses more");
    let mut bytes = Vec::with_capacity(INODE + xattrs.len());
    bytes.extend((1 | layout << 1).to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((kind | attributes.mode & 0o7777).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(address.to_le_bytes());
    // A number for 32-bit callers of stat; the real one is the inode's place.
    bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(attributes.uid.to_le_bytes());
    bytes.extend(attributes.gid.to_le_bytes());
    bytes.extend(attributes.mtime.to_le_bytes());
    bytes.extend(attributes.mtime_nanoseconds.to_le_bytes());
    bytes.extend(links.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(xattrs);
    bytes
}

/// A device number as the kernel's `new_encode_dev` has it; [`super::check`] refuses others.
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

//! What an image brings to boot with: its kernel, its initrd, and what it calls itself.

use std::cmp::Ordering;

use uapi_version::Version;

use crate::{
    kernel_options::IMAGE_OPTIONS_MAX,
    tree::{InodeId, Kind, Tree},
};

const MODULES: &[u8] = b"usr/lib/modules";
const BOOT: &[u8] = b"boot";
/// Where a distribution puts the initrd of kernel `{}`, the most explicit place first.
const INITRDS: [&str; 7] = [
    "usr/lib/modules/{}/initramfs.img",
    "usr/lib/modules/{}/initrd",
    "usr/lib/modules/{}/initrd.img",
    "boot/initrd.img-{}",
    "boot/initramfs-{}.img",
    "boot/initrd-{}",
    "boot/initrd-{}.img",
];
/// Names without a version, for images that have nothing else.
const UNVERSIONED: [(&str, &str); 3] =
    [("vmlinuz", "initrd.img"), ("boot/vmlinuz", "boot/initrd.img"), ("boot/vmlinuz", "boot/initrd")];
const OS_RELEASE: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];
/// As `kernel-install(8)` looks for them.
const KERNEL_OPTIONS: [&str; 2] = ["etc/kernel/cmdline", "usr/lib/kernel/cmdline"];

/// A file of the image whose bytes lie in the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Path in the image, absolute.
    pub path: String,
    /// First block.
    pub block: u32,
    /// Bytes.
    pub length: u64,
}

/// Why an image cannot be booted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootFilesError {
    /// It has no kernel.
    #[error(
        "the image has no kernel: none at /usr/lib/modules/VERSION/vmlinuz, /boot/vmlinuz-VERSION or /vmlinuz; \
         install a kernel package when the image is built"
    )]
    NoKernel,
    /// It has no initrd for its kernel.
    #[error(
        "the image has no initrd for its kernel {0}: run `evenkeel-agent init` when the image is built, after the \
         kernel package is installed"
    )]
    NoInitrd(String),
    /// Its kernel options do not fit the kernel's command line.
    #[error(
        "the image's kernel options in {path} have {length} bytes, and the kernel's command line has room for \
         {IMAGE_OPTIONS_MAX}: shorten them"
    )]
    KernelOptionsTooLong {
        /// The file in the image.
        path: String,
        /// Its bytes.
        length: u64,
    },
}

/// Kernel and initrd: those of the highest kernel version in the image.
pub fn find(tree: &Tree) -> Result<(Found, Found), BootFilesError> {
    let newest = kernels(tree).into_iter().max_by(|(a, _), (b, _)| by_version(a, b));
    if let Some((version, kernel)) = newest {
        let initrd = INITRDS.iter().find_map(|pattern| file(tree, &pattern.replace("{}", &version)));
        return initrd.map(|initrd| (kernel, initrd)).ok_or(BootFilesError::NoInitrd(version));
    }
    let mut without = None;
    for (kernel, initrd) in UNVERSIONED {
        let Some(found) = file(tree, kernel) else { continue };
        if let Some(initrd) = file(tree, initrd) {
            return Ok((found, initrd));
        }
        without.get_or_insert(found.path);
    }
    Err(without.map_or(BootFilesError::NoKernel, BootFilesError::NoInitrd))
}

/// The image's os-release file.
pub fn os_release(tree: &Tree) -> Option<Found> {
    OS_RELEASE.iter().find_map(|path| file(tree, path))
}

/// The file with the kernel options that the image asks for.
pub fn kernel_options(tree: &Tree) -> Option<Found> {
    KERNEL_OPTIONS.iter().find_map(|path| file(tree, path))
}

/// `VERSION_ID` of an os-release file.
pub fn version_id(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.trim().strip_prefix("VERSION_ID="))?.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = quoted.unwrap_or(value);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Every kernel with its version.
fn kernels(tree: &Tree) -> Vec<(String, Found)> {
    let in_modules = names(tree, MODULES).into_iter().map(|version| {
        let path = format!("usr/lib/modules/{version}/vmlinuz");
        (version, path)
    });
    let in_boot = names(tree, BOOT).into_iter().filter_map(|name| {
        let version = name.strip_prefix("vmlinuz-")?.to_owned();
        Some((version, format!("boot/{name}")))
    });
    in_modules.chain(in_boot).filter_map(|(version, path)| Some((version, file(tree, &path)?))).collect()
}

/// Equal versions in two places: the last one counts as higher, so order is made total by the text.
fn by_version(a: &str, b: &str) -> Ordering {
    Version::from(a).cmp(&Version::from(b)).then_with(|| a.cmp(b))
}

fn names(tree: &Tree, folder: &[u8]) -> Vec<String> {
    let Ok(Some(folder)) = tree.find_following(folder) else { return Vec::new() };
    tree.entries(folder).keys().filter_map(|name| String::from_utf8(name.clone()).ok()).collect()
}

/// A file with bytes in it, with links followed.
fn file(tree: &Tree, path: &str) -> Option<Found> {
    let inode: InodeId = tree.find_following(path.as_bytes()).ok()??;
    match tree.inode(inode).kind {
        Kind::File { block, length } if length > 0 => Some(Found { path: format!("/{path}"), block, length }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Attributes;

    fn tree(files: &[&str], links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        tree.begin_layer();
        for (number, path) in (1..).zip(files) {
            let kind = Kind::File { block: number, length: 10 };
            tree.put(path.as_bytes(), kind, Attributes::default()).unwrap();
        }
        for (path, target) in links {
            let kind = Kind::Symlink(target.as_bytes().to_vec());
            tree.put(path.as_bytes(), kind, Attributes::default()).unwrap();
        }
        tree
    }

    fn paths(files: &[&str], links: &[(&str, &str)]) -> Result<(String, String), BootFilesError> {
        find(&tree(files, links)).map(|(kernel, initrd)| (kernel.path, initrd.path))
    }

    #[test]
    fn kernels_where_distributions_put_them() {
        let modules = "usr/lib/modules/6.1.0-9/vmlinuz";
        for (files, kernel, initrd) in [
            (&[modules, "usr/lib/modules/6.1.0-9/initramfs.img"][..], 0, 1),
            (&[modules, "usr/lib/modules/6.1.0-9/initrd"], 0, 1),
            (&["boot/vmlinuz-6.1.0-9", "boot/initrd.img-6.1.0-9"], 0, 1),
            (&["boot/vmlinuz-6.1.0-9", "boot/initramfs-6.1.0-9.img"], 0, 1),
            (&["boot/vmlinuz", "boot/initrd"], 0, 1),
            (
                &[
                    "boot/vmlinuz-6.1.0-9",
                    "boot/initrd.img-6.1.0-9",
                    "boot/vmlinuz-6.1.0-10",
                    "boot/initrd.img-6.1.0-10",
                ],
                2,
                3,
            ),
        ] {
            let expected = (format!("/{}", files[kernel]), format!("/{}", files[initrd]));
            assert_eq!(paths(files, &[]), Ok(expected));
        }
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let files = ["boot/kernel.bin", "boot/ramdisk"];
        let links = [("vmlinuz", "boot/kernel.bin"), ("initrd.img", "/boot/ramdisk")];
        assert_eq!(paths(&files, &links), Ok(("/vmlinuz".into(), "/initrd.img".into())));
        assert_eq!(paths(&[], &[("vmlinuz", "vmlinuz")]), Err(BootFilesError::NoKernel));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(paths(&["etc/os-release"], &[]), Err(BootFilesError::NoKernel));
        assert_eq!(paths(&["vmlinuz"], &[]), Err(BootFilesError::NoInitrd("/vmlinuz".into())));
        // An initrd for another kernel would boot, and then find no modules.
        let old = ["boot/vmlinuz-6.1.0-9", "boot/initrd.img-6.1.0-9", "boot/vmlinuz-6.1.0-10"];
        assert_eq!(paths(&old, &[]), Err(BootFilesError::NoInitrd("6.1.0-10".into())));
    }

    #[test]
    fn versions_as_os_release_writes_them() {
        for (text, version) in [
            ("NAME=x\nVERSION_ID=\"12\"\n", Some("12")),
            ("VERSION_ID='1.2.3'", Some("1.2.3")),
            ("VERSION_ID=9\n", Some("9")),
            ("VERSION_ID=\"\"\n", None),
            ("ID=debian\n", None),
        ] {
            assert_eq!(version_id(text).as_deref(), version, "{text}");
        }
    }
}

//! The kernel command line of a boot entry: what the image asks for, then what Evenkeel needs.
//!
//! An image says it in the file that `kernel-install(8)` reads: `/etc/kernel/cmdline`, or `/usr/lib/kernel/cmdline`.

/// Bytes of an image's options. The kernel of x86 takes 2048 in all; ours are some 420, and the loader adds the
/// initrd's name.
pub const IMAGE_OPTIONS_MAX: usize = 1500;
/// What every entry tells the kernel: a panic resets the machine, and an initrd that cannot go on reboots instead of
/// waiting for a person, as does a systemd that crashes, so that the boot loader can count the try.
const OURS: &str =
    "rootfstype=erofs ro panic=10 rd.shell=0 rd.emergency=reboot systemd.crash_reboot=1 systemd.gpt_auto=0";
/// For images that name no console.
const CONSOLES: &str = "console=tty0 console=ttyS0";
/// An option of these names would take a trial's safety away, or its root.
const RESERVED: [&str; 11] = [
    "root",
    "rootfstype",
    "ro",
    "rw",
    "initrd",
    "rdinit",
    "panic",
    "rd.shell",
    "rd.emergency",
    "systemd.crash_reboot",
    "systemd.gpt_auto",
];
const RESERVED_PREFIX: &str = "evenkeel.";

/// The options of a file that an image brings, on one line, without those that are not the image's to say. A line that
/// begins with `#` is a comment.
pub fn of_image(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| !is_reserved(word));
    words.filter(|word| !word.contains(char::is_control)).collect::<Vec<_>>().join(" ")
}

/// The whole line: the image's options (as [`of_image`] gives them) around `slot`, which says where the root is.
pub fn join(image: &str, slot: &str) -> String {
    let has_console = image.split(' ').any(|word| word.starts_with("console="));
    let consoles = if has_console { "" } else { CONSOLES };
    // The kernel takes the last of two values.
    [image, slot, OURS, consoles].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn is_reserved(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_is_its_to_say() {
        for (text, options) in [
            ("quiet  console=ttyS1\n", "quiet console=ttyS1"),
            ("# from the vendor\nmitigations=off\n\nquiet\n", "mitigations=off quiet"),
            ("root=/dev/sda1 rw panic=0 rootdelay=5 evenkeel.slot=z quiet", "rootdelay=5 quiet"),
            ("", ""),
        ] {
            assert_eq!(of_image(text), options, "{text}");
        }
    }

    #[test]
    fn consoles_are_ours_only_when_the_image_has_none() {
        assert_eq!(
            join("quiet", "root=x"),
            "quiet root=x rootfstype=erofs ro panic=10 rd.shell=0 rd.emergency=reboot systemd.crash_reboot=1 \
             systemd.gpt_auto=0 console=tty0 console=ttyS0"
        );
        assert!(join("console=hvc0", "root=x").ends_with("systemd.gpt_auto=0"));
        assert!(join("", "root=x").starts_with("root=x "));
    }
}

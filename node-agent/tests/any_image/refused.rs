//! What is not valid: refused by the layer's number and the entry's name, in little time and memory, and with nothing
//! written outside of the slot.

use std::io::{self, Cursor, Read};

use proptest::prelude::*;

use crate::{
    STACKS, config,
    slot::{Slot, compress},
    stacks::Form,
    tar_bytes::{Content, Dialect, Header, Item, What, archive, extra, record},
};

const FORMS: [Form; 5] = [Form::Plain, Form::Gzip, Form::GzipMembers, Form::Zstd, Form::ZstdFrames];

fn file(path: &[u8]) -> Item {
    Item::new(path, What::File(Content { length: 700, seed: 5 }))
}

/// Why a second layer of these bytes is refused, with all causes.
fn refusal(layer: impl Read) -> String {
    let slot = Slot::guarded();
    let base: Box<dyn Read> = Box::new(Cursor::new(archive(&[file(b"etc/base")], 2)));
    let layer: Box<dyn Read + '_> = Box::new(layer);
    let refused = slot.write_streams([(base, None), (layer, None)]).unwrap_err();
    slot.assert_nothing_outside_changed();
    format!("{refused:#}")
}

/// A header that the archive's own functions would not make.
fn header(name: &[u8], kind: u8, change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header::new(Dialect::Gnu);
    header.text(0, name);
    header.number(100, 8, 0o644);
    header.number(124, 12, 0);
    header.number(136, 12, 0);
    header.bytes[156] = kind;
    change(&mut header);
    header.done()
}

fn pax(records: &[u8]) -> Vec<u8> {
    [extra(b"PaxHeaders/bad", b'x', Dialect::Pax, records), file(b"bad").in_dialect(Dialect::Ustar).encode()]
        .concat()
}

#[test]
fn paths_and_links_that_lead_out() {
    let link = |path: &[u8], target: &[u8]| Item::new(path, What::HardLink(target.to_vec()));
    let symlink = |path: &[u8], target: &[u8]| Item::new(path, What::Symlink(target.to_vec()));
    for (items, words) in [
        (vec![file(b"../bad")], "entry ../bad: its path has `..` in it"),
        (vec![file(b"/a/../../bad")], "entry /a/../../bad: its path has `..`"),
        (vec![file(b"a/..")], "entry a/..: its path has `..`"),
        (vec![link(b"bad", b"../../etc/shadow")], "entry bad: its path has `..`"),
        (vec![link(b"bad", b"/etc/shadow")], "entry bad: it is a hard link to something that is not there"),
        (
            vec![link(b"bad", b"etc")],
            "entry bad: it is a hard link to something that is not there or is a dir",
        ),
        (vec![symlink(b"l", b"l"), file(b"l/bad")], "entry l/bad: more than 40 symbolic links"),
        (vec![file(b"etc/base/bad")], "entry etc/base/bad: a parent of it is not a directory"),
        (vec![file(b"/")], "entry /: it has no data by its type, and a size"),
        (vec![Item::new(b"./", What::Fifo)], "entry ./: it would replace the image's root"),
        (vec![symlink(b".", b"etc")], "entry .: it would replace the image's root"),
        (vec![file(&[b"bad/".as_slice(), &[b'n'; 256]].concat())], "has more than 255 bytes"),
        (vec![file(&b"bad/".repeat(1024))], "entry bad/bad/"),
        (vec![symlink(b"bad", b"")], "entry bad: its link target is empty"),
        (
            vec![symlink(b"bad", &[b'x'; 4096])],
            "entry bad: its link target is empty, has more than 4095 bytes",
        ),
        (vec![file(b".wh.a/bad")], "entry .wh.a/bad: its path leads through"),
    ] {
        let error = refusal(&archive(&items, 2)[..]);
        assert!(error.starts_with("layer 1: ") && error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn headers_that_make_no_sense() {
    let acl = "system.posix_acl_accessory";
    for (bytes, words) in [
        (header(b"bad", b'0', |h| h.text(124, b"-0000000001\0")), "the layer's start (bad by its header)"),
        (header(b"bad", b'0', |h| h.number(124, 12, -512)), "the layer's start (bad by its header)"),
        (header(b"bad", b'0', |h| h.text(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0")), "entry bad: its header is"),
        (header(b"bad", b'x', |h| h.text(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0")), "entry bad: its header is"),
        (
            header(b"bad", b'0', |h| h.text(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            "entry bad: its data ends",
        ),
        (header(b"bad", b'0', |h| h.text(108, b"zzz\0")), "entry bad: its header is malformed"),
        (header(b"bad", b'0', |h| h.number(108, 8, 1 << 33)), "entry bad: the extended header's owner"),
        (
            header(b"bad", b'0', |h| h.number(116, 8, i64::from(u32::MAX))),
            "entry bad: the extended header's own",
        ),
        (
            header(b"bad", b'0', |h| h.text(136, b"\x80\0\0\x01\0\0\0\0\0\0\0\0")),
            "entry bad: the extended header",
        ),
        (header(b"bad", b'3', |h| h.number(329, 8, 4096)), "entry bad: device number 4096:0 does not fit"),
        (
            header(b"bad", b'4', |h| h.number(337, 8, 1 << 20)),
            "entry bad: device number 0:1048576 does not fit",
        ),
        (header(b"bad", b'5', |h| h.number(124, 12, 512)), "entry bad: it has no data by its type"),
        (header(b"bad", b'1', |h| h.number(124, 12, 1)), "entry bad: it has no data by its type"),
        (header(b"bad", b'S', |_| ()), "entry bad: its type GNUSparse is not supported"),
        (header(b"bad", b'M', |_| ()), "entry bad: its type"),
        (header(b"bad", b'x', |_| ()), "entry bad: it is an extended header, and the layer ends"),
        (header(b"bad", b'L', |h| h.number(124, 12, 2 << 20)), "entry bad: its"),
        (
            extra(b"bad", b'L', Dialect::Gnu, &vec![b'x'; (1 << 20) + 1]),
            "entry bad: its extended headers have mo",
        ),
        (
            extra(b"bad", b'g', Dialect::Pax, &vec![b'x'; (1 << 20) + 1]),
            "entry bad: its extended headers have mo",
        ),
        (pax(b"9 nothing"), "an extended header record is malformed"),
        (pax(b"0 a=b\n"), "an extended header record is malformed"),
        (pax(b"99999999999999999999 a=b\n"), "an extended header record is malformed"),
        (pax(&record(b"size", b"-1")), "the extended header's size is not a number"),
        (pax(&record(b"size", b"18446744073709551616")), "the extended header's size is not a number"),
        (pax(&record(b"size", b"5")), "entry bad: its size is given twice"),
        (pax(&record(b"uid", b"-1")), "the extended header's uid is not a number"),
        (pax(&record(b"uid", b"4294967295")), "entry bad: the extended header's owner"),
        (pax(&record(b"mtime", b"soon")), "the extended header's mtime is not a number"),
        (pax(&record(b"path", b"a\0b")), "entry a\\u{0}b: its path holds a zero byte"),
        (pax(&record(b"GNU.sparse.major", b"1")), "sparse files are not supported"),
        (pax(&record(b"SCHILY.xattr.user.", b"x")), "entry bad: extended attribute user. has more"),
        (pax(&record(b"SCHILY.xattr.user.x", &vec![b'x'; 65_536])), "entry bad: extended attribute user.x"),
        (
            pax(&record(format!("SCHILY.xattr.user.{}", "n".repeat(251)).as_bytes(), b"")),
            "entry bad: extended",
        ),
        (
            pax(&record(format!("SCHILY.xattr.{acl}").as_bytes(), b"x")),
            "entry bad: extended attribute system.",
        ),
        (pax(&record(b"SCHILY.xattr.btrfs.x", b"x")), "entry bad: extended attribute btrfs.x"),
    ] {
        let error = refusal(&[bytes, vec![0; 1024]].concat()[..]);
        assert!(error.starts_with("layer 1: ") && error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn a_wrong_checksum_is_told_by_the_entry_before_and_what_the_header_says() {
    let mut tar = archive(&[file(b"good"), file(b"bad").in_dialect(Dialect::Ustar)], 2);
    let at = tar.windows(4).rposition(|part| part == b"bad\0").unwrap();
    tar[at] = b'B';
    let error = refusal(&tar[..]);
    assert!(
        error.starts_with("layer 1: the entry behind good (Bad by its header) cannot be read: "),
        "{error}"
    );
}

#[test]
fn a_header_that_is_cut_off_is_told_by_its_name() {
    let tar = archive(&[file(b"bad").in_dialect(Dialect::Ustar)], 2);
    let long = pax(&record(b"path", b"a/long/path"));
    for (bytes, words) in [
        (&tar[..300], "the entry behind the layer's start (bad by its header) cannot be read: "),
        (&tar[..50], "the entry behind the layer's start cannot be read: "),
        // Behind 700 bytes of data.
        (&[&archive(&[file(b"good")], 0)[..], &tar[..300]].concat(), "behind good (bad by its header) "),
        (&long[..1024 + 20], "the entry behind PaxHeaders/bad (a/long/path by its header) "),
    ] {
        let error = refusal(bytes);
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}

/// What is behind the first block of zeros would be left out; padding to records of 10 KiB is as good as none.
#[test]
fn a_layer_that_goes_on_behind_its_end() {
    let more = archive(&[file(b"more")], 2);
    let zeros = |count: usize| vec![0; count];
    // BuildKit leaves a tar as it was and puts the table of an eStargz behind it.
    let table = archive(&[file(b"stargz.index.json").in_dialect(Dialect::Ustar)], 2);
    for (tar, taken) in [
        ([archive(&[file(b"one")], 2), table.clone()].concat(), true),
        ([archive(&[file(b"one")], 2), zeros(8192), table.clone(), zeros(8192)].concat(), true),
        ([archive(&[file(b"one")], 2), table.clone(), more.clone()].concat(), false),
        ([archive(&[file(b"one")], 2), table.clone(), table].concat(), false),
        (archive(&[file(b"one")], 0), true),
        (archive(&[file(b"one")], 1), true),
        ([archive(&[file(b"one")], 2), zeros(10_240)].concat(), true),
        ([archive(&[file(b"one")], 1), more.clone()].concat(), false),
        ([archive(&[file(b"one")], 2), more.clone()].concat(), false),
        ([archive(&[file(b"one")], 2), zeros(200_000), b"x".to_vec()].concat(), false),
    ] {
        for form in FORMS {
            let outcome = &Slot::new().apply_all([&compress(&tar, form)[..]])[0];
            let refused = |error: &String| error.contains("goes on behind one after a block");
            assert!(
                if taken { outcome.is_ok() } else { outcome.as_ref().is_err_and(refused) },
                "{outcome:?}"
            );
        }
    }
    let error = refusal(&[archive(&[file(b"one")], 1), more].concat()[..]);
    assert!(error.starts_with("layer 1: the layer goes on behind one"), "{error}");
}

#[test]
fn an_error_is_short_and_tame_whatever_the_name() {
    let name = [b"\x1b[2J".as_slice(), &vec![b'n'; 100_000]].concat();
    let error = refusal(&archive(&[file(&name)], 2)[..]);
    assert!(error.len() < 600 && !error.contains('\x1b'), "{} {error:.200}", error.len());
}

/// By name, and not as an archive that is damaged.
#[test]
fn other_compressions() {
    for (bytes, name) in [
        (&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F"[..], "xz"),
        (b"BZh91AY&SY\x19\x80\x02", "bzip2"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7", "lz4"),
    ] {
        let error = refusal(bytes);
        assert!(
            error.starts_with("layer 1: ") && error.contains(&format!("compressed with {name}, and")),
            "{error}"
        );
    }
    let names = [file(b"BZh91AY").in_dialect(Dialect::Ustar), file(b"xz").in_dialect(Dialect::Ustar)];
    assert!(Slot::new().apply_all([&archive(&names, 2)[..]])[0].is_ok());
}

/// A stream cut anywhere is an error, or has another diff ID: where a tar, a member or a frame ends is a whole stream.
/// Only the blob's own digest tells that a last member or frame with nothing in it is missing.
#[test]
fn streams_that_end_early() {
    let link = Item::new(b"link", What::Symlink(b"etc".to_vec())).in_dialect(Dialect::Gnu);
    let items = [file(b"etc/one"), link, file(&[b'n'; 200]).in_dialect(Dialect::Gnu), file(b"two")];
    let tar = archive(&items, 2);
    let slot = Slot::new();
    for form in FORMS {
        let whole = compress(&tar, form);
        let outcomes = slot.apply_all((0..=whole.len()).map(|end| &whole[..end]));
        let (last, cut) = outcomes.split_last().unwrap();
        let expected = last.as_ref().unwrap();
        for (end, outcome) in cut.iter().enumerate() {
            match outcome {
                Ok(diff_id) if end + nothing_behind(form) == whole.len() => assert_eq!(diff_id, expected),
                Ok(diff_id) => assert_ne!(diff_id, expected, "{form:?} cut at {end}"),
                Err(error) => assert!(error.contains("entry") || error.contains("stream"), "{error}"),
            }
        }
        let refused = cut.iter().filter(|outcome| outcome.is_err()).count();
        assert!(refused * 10 > cut.len() * 8, "{form:?}: only {refused} of {} were noticed", cut.len());
    }
}

/// Bytes of the last member or frame where it holds nothing.
fn nothing_behind(form: Form) -> usize {
    match form {
        Form::GzipMembers => compress(b"", Form::Gzip).len(),
        Form::ZstdFrames => b"PSKIsize".len() + b"toc".len(),
        Form::Plain | Form::Gzip | Form::Zstd => 0,
    }
}

/// Bytes without number from a small seed, as something that was compressed would give.
fn endless(start: Vec<u8>, block: Vec<u8>) -> impl Read {
    struct Cycle(Cursor<Vec<u8>>);
    impl Read for Cycle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.position() == self.0.get_ref().len() as u64 {
                self.0.set_position(0);
            }
            self.0.read(buffer)
        }
    }
    Cursor::new(start).chain(Cycle(Cursor::new(block)))
}

/// None of these ends by itself.
#[test]
fn bombs() {
    let large = header(b"large", b'0', |h| h.number(124, 12, 1 << 40));
    let padding = vec![0; 1 << 20];
    let long = extra(b"long", b'g', Dialect::Pax, &vec![b'x'; 1 << 20]);
    let silent = extra(b"silent", b'x', Dialect::Pax, &record(b"comment", &vec![b'x'; 900_000]));
    for (what, stream, words) in [
        (
            "zeros behind the end",
            endless(archive(&[file(b"a")], 2), padding),
            "more than 16 MiB behind the end",
        ),
        ("a file without end", endless(large, vec![b'x'; 1 << 20]), "does not fit into slot b"),
        ("headers for all", endless(Vec::new(), long), "more than 4000000 entries, or more than 1 GB of"),
        (
            "headers for none",
            endless(Vec::new(), silent),
            "its extended headers have more than 1048576 bytes",
        ),
    ] {
        let error = refusal(stream);
        assert!(error.contains(words), "{what}: {error}");
    }
}

proptest! {
    #![proptest_config(config(STACKS))]

    /// Whatever is changed in a layer: an end in good time, with a diff ID or an error that names something.
    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        form in prop::sample::select(FORMS.to_vec()),
    ) {
        let mut items = vec![file(b"etc/one"), Item::new(b"d", What::Directory), file(b"./d/two")];
        items[1].xattrs.insert(b"user.x".to_vec(), vec![1; 50]);
        items.push(Item::new(b"hard", What::HardLink(b"etc/one".to_vec())).in_dialect(Dialect::Gnu));
        let mut bytes = compress(&archive(&items, 2), form);
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        let slot = Slot::new();
        let _ = slot.apply_all([&bytes[..]]);
    }
}

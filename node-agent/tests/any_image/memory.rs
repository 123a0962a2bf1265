//! Layers that are small to download, and would fill the memory of whoever reads them.

use std::{
    io::{self, Cursor, Read},
    process::Command,
};

use crate::{
    slot::Slot,
    tar_bytes::{Content, Dialect, Item, What, extra, record},
};

fn file(path: &[u8]) -> Item {
    Item::new(path, What::File(Content { length: 700, seed: 5 })).in_dialect(Dialect::Ustar)
}

/// So many pieces of a tar, made when they are read.
fn pieces(count: usize, make: impl Fn(usize) -> Vec<u8>) -> impl Read {
    struct Pieces<I>(I, Cursor<Vec<u8>>);
    impl<I: Iterator<Item = Vec<u8>>> Read for Pieces<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.position() == self.1.get_ref().len() as u64 {
                self.1 = Cursor::new(self.0.next().unwrap_or_default());
            }
            self.1.read(buffer)
        }
    }
    Pieces((0..count).map(make).chain([vec![0; 1024]]), Cursor::new(Vec::new()))
}

/// What compresses to a thousandth and would fill the memory; and why it is refused, if it is.
fn large_in_memory(name: &str) -> (Box<dyn Read>, Option<&'static str>) {
    fn attributes(piece: usize, count: usize, length: usize) -> Vec<u8> {
        let key = |number| format!("SCHILY.xattr.user.{:x}", piece * count + number);
        let value = vec![b'x'; length];
        let records: Vec<_> = (0..count).map(|number| record(key(number).as_bytes(), &value)).collect();
        extra(b"x", b'x', Dialect::Pax, &records.concat())
    }
    // No two in a row have anything in common.
    let long = |piece: usize| [[b"ab"[piece % 2]; 250].as_slice(), b"/"].concat().repeat(15);
    let whiteout = file(b"etc/.wh.nothing").encode();
    match name {
        "headers of one entry" => (
            Box::new(pieces(900, |piece| attributes(piece, 16, 60_000))),
            Some("its extended headers have more than 1048576 bytes"),
        ),
        "attributes of what hides others" => (
            Box::new(pieces(2500, move |piece| [attributes(piece, 4, 60_000), whiteout.clone()].concat())),
            None,
        ),
        "links with long names" => (
            Box::new(pieces(45_000, move |piece| {
                let path = [&long(piece)[..], b"name"].concat();
                let records = [record(b"path", &path), record(b"linkpath", &path)].concat();
                let what = if piece < 2 { file(b"name").what } else { What::HardLink(b"name".to_vec()) };
                let entry = Item::new(b"name", what).in_dialect(Dialect::Ustar).encode();
                [extra(b"x", b'x', Dialect::Pax, &records), entry].concat()
            })),
            None,
        ),
        "very many attributes" => (
            Box::new(pieces(400, |piece| [attributes(piece, 20_000, 0), file(b"name").encode()].concat())),
            Some("more than 800000 entries"),
        ),
        name => panic!("{name}"),
    }
}

/// Each in a process of its own, whose memory the kernel counts.
#[test]
fn a_layer_takes_no_more_memory_than_the_largest_image() {
    const VARIABLE: &str = "EVENKEEL_TEST_LAYER";
    const MIB_MAX: u64 = 256;
    if let Ok(name) = std::env::var(VARIABLE) {
        let (layer, words) = large_in_memory(&name);
        let outcome = Slot::new().write_streams([(layer, None)]).map_err(|error| format!("{error:#}"));
        match words {
            Some(words) => assert!(outcome.as_ref().is_err_and(|error| error.contains(words)), "{outcome:?}"),
            None => assert!(outcome.is_ok(), "{outcome:?}"),
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib >> 10 < MIB_MAX, "{name}: {} MiB", kib >> 10);
        return;
    }
    for name in [
        "headers of one entry",
        "attributes of what hides others",
        "links with long names",
        "very many attributes",
    ] {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "memory::a_layer_takes_no_more_memory_than_the_largest_image", "--nocapture"]);
        assert!(alone.env(VARIABLE, name).status().unwrap().success(), "{name}");
    }
}

//! Random stacks of layers: few names, so that entries meet each other, and everything that an entry may say.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    oracle::Oracle,
    tar_bytes::{Content, Dialect, Item, What},
};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Plain,
    Gzip,
    GzipMembers,
    Zstd,
    ZstdFrames,
}

/// A layer: its entries, the empty blocks at its end, and its form.
#[derive(Clone, Debug)]
pub struct Layer {
    pub items: Vec<Item>,
    pub end: usize,
    pub form: Form,
}

/// Valid stacks: what the oracle does not take where it stands is left out.
pub fn stacks(links: bool) -> impl Strategy<Value = Vec<Layer>> {
    vec(layer(links), 1..5).prop_map(|mut layers| {
        let mut oracle = Oracle::default();
        for layer in &mut layers {
            oracle.begin_layer();
            layer.items.retain(|item| oracle.apply(item).is_ok());
        }
        layers
    })
}

fn layer(links: bool) -> impl Strategy<Value = Layer> {
    let form = select(vec![Form::Plain, Form::Gzip, Form::GzipMembers, Form::Zstd, Form::ZstdFrames]);
    (vec(item(links), 0..24), select(vec![0, 1, 2, 20]), form).prop_map(|(items, end, form)| Layer {
        items,
        end,
        form,
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => select(vec!["a", "b", "c", "d"]).prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(vec![b'n'; 255]),
        1 => select(vec![&b"\xff\xfe\x80"[..], b"two words", b"line\nend", "ü".as_bytes(), b".dot", b"-f", b"a+b"])
            .prop_map(<[u8]>::to_vec),
    ]
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    vec(name(), 1..4).prop_map(|names| names.join(&b'/'))
}

/// A path as tar programs write it.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let start = select(vec!["", "", "", "./", "/", ".//", "./././"]);
    prop_oneof![
        30 => (start, names()).prop_map(|(start, names)| [start.as_bytes(), &names].concat()),
        1 => Just(b"./".to_vec()),
    ]
}

fn whiteout() -> impl Strategy<Value = Vec<u8>> {
    let hidden = prop_oneof![3 => name(), 2 => Just(b".wh..opq".to_vec())];
    (option::of(names()), hidden).prop_map(|(above, hidden)| {
        let mut path = above.map_or(Vec::new(), |mut above| {
            above.push(b'/');
            above
        });
        path.extend([b".wh.", hidden.as_slice()].concat());
        path
    })
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => names(),
        3 => names().prop_map(|names| [b"/", names.as_slice()].concat()),
        3 => names().prop_map(|names| [b"../../", names.as_slice()].concat()),
        1 => Just(b"..".to_vec()),
        1 => Just(vec![b'x'; 300]),
        1 => Just(b"y/".repeat(600)),
        1 => Just(vec![b'z'; 4095]),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let length = prop_oneof![
        12 => select(vec![0, 1, 511, 512, 513, 4095, 4096, 4097]),
        4 => 0_usize..200_000,
        1 => select(vec![1 << 20, (1 << 20) + 1, 2_500_000]),
    ];
    (length, any::<u8>()).prop_map(|(length, seed)| Content { length, seed })
}

fn what(links: bool) -> impl Strategy<Value = What> {
    let link = u32::from(links);
    prop_oneof![
        8 => Just(What::Directory),
        8 => content().prop_map(What::File),
        4 * link => target().prop_map(What::Symlink),
        4 * link => path().prop_map(What::HardLink),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
    ]
}

fn time() -> impl Strategy<Value = (i64, u32)> {
    let seconds = prop_oneof![
        4 => 0_i64..2_000_000_000,
        // Before 1970, at the ends of 32 bits and of eleven octal digits, and far away.
        4 => select(vec![
            -1,
            -2_208_988_800,
            i64::from(u32::MAX) + 1,
            8_589_934_591,
            8_589_934_592,
            1 << 40,
            -(1 << 40),
        ]),
    ];
    let nanoseconds = prop_oneof![3 => Just(0), 1 => select(vec![1, 999_999_999, 123_456_789, 500_000_000])];
    (seconds, nanoseconds)
}

fn id() -> impl Strategy<Value = u32> {
    select(vec![0, 0, 1000, 65_535, 65_536, 0o7_777_777, 0o10_000_000, u32::MAX - 1])
}

/// An access list as the kernel keeps it: version 2, then tag, permissions and ID of each entry.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [
        entry(1, 7, none),
        entry(2, 5, 70_000),
        entry(4, 5, none),
        entry(8, 4, 12),
        entry(16, 7, none),
        entry(32, 0, none),
    ];
    [2_u32.to_le_bytes().to_vec(), entries.concat()].concat()
}

fn xattrs(what: &What) -> BoxedStrategy<BTreeMap<Vec<u8>, Vec<u8>>> {
    let own = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    let mut known = vec![
        own(b"security.selinux", b"system_u:object_r:bin_t:s0\0"),
        own(b"trusted.note", b"\0=\n"),
        own(b"trusted.overlay.opaque", b"y"),
    ];
    // The kernel keeps others from links, devices and pipes.
    if matches!(what, What::Directory | What::File(_)) {
        known.extend([
            own(b"user.empty", b""),
            own(&[b"user.".as_slice(), &[b'l'; 250]].concat(), &[7; 300]),
            own(b"user.\xff", b"no UTF-8 in its name"),
            own(b"user.long", &[b'v'; 5000]),
            own(b"user.longest", &vec![b'w'; 65_535]),
            own(b"system.posix_acl_access", &acl()),
        ]);
    }
    if matches!(what, What::Directory) {
        known.push(own(b"system.posix_acl_default", &acl()));
    }
    if matches!(what, What::File(_)) {
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        known.push(own(b"security.capability", capability));
    }
    if matches!(what, What::HardLink(_)) {
        return Just(BTreeMap::new()).boxed();
    }
    prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => vec(select(known), 1..6).prop_map(|xattrs| xattrs.into_iter().collect()),
    ]
    .boxed()
}

fn item(links: bool) -> impl Strategy<Value = Item> {
    let dialect = || select(vec![Dialect::Old, Dialect::Ustar, Dialect::Gnu, Dialect::Pax]);
    let common = || (0_u16..0o10_000, (id(), id()), time(), dialect());
    let entry = (path(), what(links), common()).prop_flat_map(|(path, what, common)| {
        let xattrs = xattrs(&what);
        (Just(path), Just(what), Just(common), xattrs)
    });
    let entry = entry.prop_map(|(mut path, what, (mode, owner, time, dialect), xattrs)| {
        if what == What::Directory && dialect != Dialect::Pax && !path.ends_with(b"/") {
            path.push(b'/');
        }
        Item { path, what, mode, owner, time, xattrs, dialect }
    });
    let hide = (whiteout(), common()).prop_map(|(path, (mode, owner, time, dialect))| {
        let what = What::File(Content { length: 0, seed: 0 });
        Item { path, what, mode, owner, time, xattrs: BTreeMap::new(), dialect }
    });
    prop_oneof![5 => entry, 1 => hide]
}

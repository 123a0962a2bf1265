//! What layers do to the tree, and what they may not.

use super::*;

fn file(tree: &mut Tree, path: &str) {
    let kind = Kind::File { block: 1, length: 1 };
    tree.put(path.as_bytes(), kind, Attributes::default()).unwrap();
}

fn has(tree: &Tree, path: &str) -> bool {
    tree.find(path.as_bytes()).unwrap().is_some()
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let mut tree = Tree::default();
    file(&mut tree, "etc/old");
    tree.begin_layer();
    file(&mut tree, "etc/.wh.old");
    file(&mut tree, "./etc/new");
    file(&mut tree, "etc/.wh.new");
    assert!(!has(&tree, "etc/old"));
    assert!(has(&tree, "/etc/new"));
}

#[test]
fn an_opaque_marker_after_its_directorys_entries_keeps_them() {
    let mut tree = Tree::default();
    file(&mut tree, "d/lower");
    file(&mut tree, "d/sub/lower");
    tree.begin_layer();
    file(&mut tree, "d/sub/upper");
    file(&mut tree, "d/.wh..wh..opq");
    assert!(!has(&tree, "d/lower") && !has(&tree, "d/sub/lower"));
    assert!(has(&tree, "d/sub/upper"));
}

#[test]
fn an_entry_below_a_linked_directory_lands_in_its_target() {
    let mut tree = Tree::default();
    file(&mut tree, "usr/lib/libc.so");
    tree.put(b"lib", Kind::Symlink(b"usr/lib".to_vec()), Attributes::default()).unwrap();
    tree.begin_layer();
    file(&mut tree, "lib/new.so");
    assert!(has(&tree, "usr/lib/new.so"));
}

#[test]
fn a_links_target_above_the_root_stays_in_the_image() {
    let mut tree = Tree::default();
    file(&mut tree, "etc/passwd");
    tree.put(b"out", Kind::Symlink(b"../../../etc".to_vec()), Attributes::default()).unwrap();
    file(&mut tree, "out/new");
    assert!(has(&tree, "etc/new"));
}

#[test]
fn hostile_paths_are_refused() {
    let mut tree = Tree::default();
    let put = |tree: &mut Tree, path: &[u8]| tree.put(path, Kind::Fifo, Attributes::default());
    assert_eq!(put(&mut tree, b"a/../../etc/shadow"), Err(TreeError::Traversal));
    assert_eq!(put(&mut tree, &[b'x'; 256]), Err(TreeError::NameTooLong));
    assert_eq!(put(&mut tree, b"/"), Err(TreeError::Root));
    assert_eq!(put(&mut tree, &b"d/".repeat(2049)), Err(TreeError::PathTooLong));
    tree.put(b"loop", Kind::Symlink(b"loop".to_vec()), Attributes::default()).unwrap();
    assert_eq!(put(&mut tree, b"loop/x"), Err(TreeError::TooManyLinks));
    assert_eq!(tree.hard_link(b"x", b"nowhere"), Err(TreeError::BadHardLink));
}
#[test]
fn depth_through_links_has_a_limit_and_can_be_removed() {
    let mut tree = Tree::default();
    let deep = b"d/".repeat(500);
    let through = |tree: &mut Tree, from: &str, to: &str| {
        let target = [b"/".as_slice(), from.as_bytes(), b"/", &deep].concat();
        tree.put(to.as_bytes(), Kind::Symlink(target), Attributes::default()).unwrap();
        tree.put(&[to.as_bytes(), b"/", &deep[..], b"x"].concat(), Kind::Fifo, Attributes::default())
    };
    tree.put(&[b"a/", &deep[..], b"x"].concat(), Kind::Fifo, Attributes::default()).unwrap();
    let links = [("a", "l0"), ("l0", "l1"), ("l1", "l2"), ("l2", "l3")];
    let outcomes = links.map(|(from, to)| through(&mut tree, from, to));
    assert!(outcomes.contains(&Err(TreeError::PathTooLong)), "{outcomes:?}");
    tree.begin_layer();
    tree.put(b".wh.a", Kind::Fifo, Attributes::default()).unwrap();
    assert!(!has(&tree, "a"));
}

#[test]
fn text_without_end_is_refused() {
    let mut tree = Tree::default();
    let target = Kind::Symlink(vec![b'x'; 1 << 20]);
    let outcome =
        (0..100).try_for_each(|n| tree.put(format!("{n}").as_bytes(), target.clone(), Attributes::default()));
    assert_eq!(outcome, Err(TreeError::TooLarge));
}

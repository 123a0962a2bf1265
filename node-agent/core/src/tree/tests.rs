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
    let xattrs = BTreeMap::from([(b"user.x".to_vec(), vec![b'x'; 60_000])]);
    let attributes = Attributes { xattrs, ..Attributes::default() };
    let outcome =
        (0..2000).try_for_each(|n| tree.put(format!("{n}").as_bytes(), Kind::Fifo, attributes.clone()));
    assert_eq!(outcome, Err(TreeError::TooLarge));
}

#[test]
fn an_entry_below_a_link_to_nothing_yet_makes_what_it_names() {
    let mut tree = Tree::default();
    tree.put(b"var/run", Kind::Symlink(b"../run/now".to_vec()), Attributes::default()).unwrap();
    file(&mut tree, "var/run/lock");
    assert!(has(&tree, "run/now/lock"));
    let link = tree.find(b"var/run").unwrap().unwrap();
    assert!(matches!(tree.inode(link).kind, Kind::Symlink(_)), "the link stays");
}

#[test]
fn a_hidden_directory_with_something_new_in_it_is_implied_in_either_order() {
    for order in [["d/new", ".wh.d"], [".wh.d", "d/new"], ["d/new", ".wh..wh..opq"]] {
        let mut tree = Tree::default();
        let attributes = Attributes { uid: 7, mode: 0o700, ..Attributes::default() };
        tree.put(b"d", Kind::Directory(BTreeMap::new()), attributes).unwrap();
        file(&mut tree, "d/old");
        tree.begin_layer();
        for path in order {
            file(&mut tree, path);
        }
        let directory = tree.inode(tree.find(b"d").unwrap().unwrap());
        assert_eq!((directory.attributes.uid, directory.attributes.mode), (0, 0o755), "{order:?}");
        assert!(has(&tree, "d/new") && !has(&tree, "d/old"), "{order:?}");
    }
}

#[test]
fn whiteouts_below_nothing_make_nothing() {
    let mut tree = Tree::default();
    file(&mut tree, "plain");
    tree.begin_layer();
    for path in ["absent/.wh.x", "absent/.wh..wh..opq", "plain/.wh.x", "plain/deeper/.wh.x"] {
        file(&mut tree, path);
    }
    tree.hard_link(b".wh.plain", b"nowhere").unwrap();
    assert!(tree.entries(ROOT).is_empty());
}

#[test]
fn no_name_begins_like_a_whiteout() {
    let mut tree = Tree::default();
    let put = |tree: &mut Tree, path: &[u8], kind| tree.put(path, kind, Attributes::default());
    assert_eq!(put(&mut tree, b"a/.wh.b/c", Kind::Fifo), Err(TreeError::BelowWhiteout));
    put(&mut tree, b"l", Kind::Symlink(b".wh.b".to_vec())).unwrap();
    assert_eq!(put(&mut tree, b"l/c", Kind::Fifo), Err(TreeError::BelowWhiteout));
    put(&mut tree, b"long", Kind::Symlink(vec![b'x'; 256])).unwrap();
    assert_eq!(put(&mut tree, b"long/c", Kind::Fifo), Err(TreeError::NameTooLong));
}

#[test]
fn the_longest_name_can_be_hidden() {
    let mut tree = Tree::default();
    let name = "n".repeat(255);
    file(&mut tree, &name);
    tree.begin_layer();
    file(&mut tree, &format!(".wh.{name}"));
    assert!(tree.entries(ROOT).is_empty());
}

#[test]
fn links_and_names_that_no_kernel_makes_are_refused() {
    let mut tree = Tree::default();
    let put = |tree: &mut Tree, path: &[u8], kind| tree.put(path, kind, Attributes::default());
    assert_eq!(put(&mut tree, b"a\0b", Kind::Fifo), Err(TreeError::ZeroByte));
    for target in [vec![], vec![b'x'; 4096], b"a\0b".to_vec()] {
        assert_eq!(put(&mut tree, b"l", Kind::Symlink(target)), Err(TreeError::BadTarget));
    }
    put(&mut tree, b"l", Kind::Symlink(vec![b'x'; 4095])).unwrap();
}

/// Each of these markers would look through everything, were it not remembered that nothing is left to find.
#[test]
fn markers_without_number_take_no_time_without_end() {
    let mut tree = Tree::default();
    (0..20_000).for_each(|number| file(&mut tree, &format!("d/{number}")));
    tree.begin_layer();
    (0..20_000).for_each(|number| file(&mut tree, &format!("d/new-{number}")));
    for _ in 0..20_000 {
        file(&mut tree, "d/.wh..wh..opq");
        file(&mut tree, ".wh.d");
    }
    assert_eq!(tree.entries(tree.find(b"d").unwrap().unwrap()).len(), 20_000);
}

/// Some links that lead through each other make tens of thousands of names of one short path.
#[test]
fn links_through_links_take_no_time_without_end() {
    let mut tree = Tree::default();
    let put = |tree: &mut Tree, path: &str, kind| tree.put(path.as_bytes(), kind, Attributes::default());
    put(&mut tree, "a", Kind::Directory(BTreeMap::new())).unwrap();
    put(&mut tree, "l0", Kind::Symlink(b".".to_vec())).unwrap();
    for number in 1..39 {
        let target = "a/../".repeat(800) + &format!("l{}", number - 1);
        put(&mut tree, &format!("l{number}"), Kind::Symlink(target.into_bytes())).unwrap();
    }
    put(&mut tree, "l38/1", Kind::Fifo).unwrap();
    assert!(tree.walked > 50_000, "{}", tree.walked);
    tree.walked = walk::WALKED_MAX - 1000;
    assert_eq!(put(&mut tree, "l38/2", Kind::Fifo), Err(TreeError::TooFar));
    assert_eq!(put(&mut tree, "l38/.wh.2", Kind::Fifo), Err(TreeError::TooFar));
}

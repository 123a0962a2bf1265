//! Layers that break, change and lie.

use crate::{
    LAYER_BYTES, fetch, fetch_with, layer, layer_path, one_image, options,
    server::{Answer, digest},
};

#[tokio::test]
async fn a_layer_goes_on_where_it_broke() {
    let server = one_image()
        .serve_layer(|layer, request, number| {
            let cut = if number < 2 { 100_000 } else { LAYER_BYTES };
            match request.from {
                0 => Answer::new(200, layer).cut(cut),
                from => Answer::part(layer, from).cut(cut),
            }
        })
        .await;
    assert_eq!(fetch(&server).await.unwrap(), layer());
    let asked: Vec<usize> = server.seen(&layer_path()).iter().map(|request| request.from).collect();
    assert_eq!(asked, [0, 100_000, 200_000]);
}

/// A layer that broke after 100,000 bytes, then an answer that has some of its bytes, with `Content-Range`; then the
/// whole. And from where on the registry was asked in the end.
#[tokio::test]
async fn parts_that_cannot_be_placed_make_the_whole_be_asked_for() {
    for (name, status, bytes, range, last_asked) in [
        ("the whole", 200, 0..300_000, None, 100_000),
        ("the whole, called a part", 206, 0..300_000, Some("bytes 0-299999/300000"), 100_000),
        ("more than was asked for", 206, 50_000..300_000, Some("bytes 50000-299999/300000"), 100_000),
        ("size unknown", 206, 100_000..300_000, Some("bytes 100000-299999/*"), 100_000),
        ("no range", 206, 100_000..300_000, None, 0),
        ("a later range", 206, 200_000..300_000, Some("bytes 200000-299999/300000"), 0),
        ("an older range", 206, 0..100_000, Some("bytes 0-99999/300000"), 0),
        ("longer than it says", 206, 0..300_000, Some("bytes 100000-299999/300000"), 0),
        ("an end before its beginning", 206, 100_000..300_000, Some("bytes 299999-100000/300000"), 0),
        ("of a blob of another size", 206, 100_000..300_000, Some("bytes 100000-299999/300001"), 0),
        ("not satisfiable in a blob of another size", 416, 0..0, Some("bytes */5"), 0),
        ("of something else", 206, 100_000..300_000, Some("pages 1-2/3"), 0),
        ("not satisfiable", 416, 0..0, Some("bytes */300000"), 0),
        ("not satisfiable, no range", 416, 0..0, None, 0),
    ] {
        let server = one_image()
            .serve_layer(move |layer, _, number| match (number, range) {
                (0, _) => Answer::new(200, layer).cut(100_000),
                (1, Some(range)) => Answer::new(status, &layer[bytes.clone()]).header("Content-Range", range),
                (1, None) => Answer::new(status, &layer[bytes.clone()]),
                _ => Answer::new(200, layer),
            })
            .await;
        assert_eq!(fetch(&server).await.unwrap(), layer(), "{name}");
        assert_eq!(server.seen(&layer_path()).last().unwrap().from, last_asked, "{name}");
    }
}

#[tokio::test]
async fn a_registry_that_gives_little_at_a_time_is_asked_again_at_once() {
    let server = one_image()
        .serve_layer(|layer, request, _| {
            let (from, to) = (request.from, LAYER_BYTES.min(request.from + 30_000));
            match from {
                0 => Answer::new(200, layer).cut(30_000),
                from => Answer::new(206, &layer[from..to])
                    .header("Content-Range", &format!("bytes {from}-{}/{LAYER_BYTES}", to - 1)),
            }
        })
        .await;
    assert_eq!(fetch(&server).await.unwrap(), layer());
    assert_eq!(server.seen(&layer_path()).len(), 10);
}

/// Such as a store that has no name on the node's network: the registry is well.
#[tokio::test]
async fn a_store_that_cannot_be_reached_is_named_beside_the_registry_that_sends_us_there() {
    let server = one_image()
        .serve_layer(|_, _, _| {
            Answer::new(307, "").header("Location", "http://127.0.0.1:1/store?signature=x")
        })
        .await;
    let error = fetch(&server).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryUnreachable");
    let told =
        format!("registry 127.0.0.1:1 (where {} sends us) cannot be reached over http", server.address);
    assert!(error.to_string().contains(&told) && !error.to_string().contains("signature"), "{error}");
}

#[tokio::test]
async fn a_registry_without_ranges_is_not_asked_for_ever() {
    let server =
        one_image().serve_layer(|layer, _, number| Answer::new(200, layer).cut(1000 * (number + 1))).await;
    let error = fetch(&server).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("RegistryUnreachable", true));
    assert!(error.to_string().contains("broke at byte 4000 of 300000"), "{error}");
    assert_eq!(server.seen(&layer_path()).len(), 5);
}

#[tokio::test]
async fn layers_that_are_not_what_the_manifest_says() {
    let mut flipped = layer();
    flipped[LAYER_BYTES - 1] ^= 1;
    let endless = Answer::new(200, [layer(), layer()].concat()).without_length();
    let other_size = Answer::new(206, layer()).header("Content-Range", "bytes 0-299999/300001");
    for (answer, reason, after_a_part) in [
        (Answer::new(200, &layer()[1..]), "TruncatedLayer", false),
        (Answer::new(200, [layer(), layer()].concat()), "TruncatedLayer", false),
        (endless, "TruncatedLayer", false),
        (other_size, "TruncatedLayer", true),
        (Answer::new(416, "").header("Content-Range", "bytes */100000"), "TruncatedLayer", true),
        (Answer::new(416, ""), "RegistryRefused", false),
        (Answer::new(200, flipped.clone()), "DigestMismatch", false),
        (Answer::part(&flipped, 100_000), "DigestMismatch", true),
        (Answer::new(404, ""), "ImageNotFound", false),
        (Answer::new(404, ""), "ImageNotFound", true),
    ] {
        let server = one_image()
            .serve_layer(move |layer, _, number| match number {
                0 if after_a_part => Answer::new(200, layer).cut(100_000),
                _ => answer.clone(),
            })
            .await;
        let error = fetch(&server).await.unwrap_err();
        // What was put together from parts may come right in one piece.
        let retryable = reason == "DigestMismatch" && after_a_part;
        assert_eq!((error.reason(), error.retryable()), (reason, retryable), "{error}");
        assert!(reason == "RegistryRefused" || error.to_string().contains(&digest(&layer())), "{error}");
    }
}

#[tokio::test]
async fn a_part_that_lies_about_its_place_is_found_out_at_the_end_and_no_part_is_asked_for_again() {
    let server = one_image()
        .serve_layer(|layer, _, number| match number {
            0 | 2 => Answer::new(200, layer).cut(100_000),
            1 => Answer::new(206, &layer[..200_000]).header("Content-Range", "bytes 100000-299999/300000"),
            _ => Answer::new(200, layer),
        })
        .await;
    let options = options();
    let error = fetch_with(options.clone(), &server).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("DigestMismatch", true), "{error}");
    assert_eq!(fetch_with(options, &server).await.unwrap(), layer());
    let asked: Vec<usize> = server.seen(&layer_path()).iter().map(|request| request.from).collect();
    assert_eq!(asked, [0, 100_000, 0, 0]);
}

#[tokio::test]
async fn silence_and_resets_are_borne_in_the_middle_of_a_layer() {
    let server = one_image()
        .serve_layer(|layer, request, number| {
            let rest =
                if request.from == 0 { Answer::new(200, layer) } else { Answer::part(layer, request.from) };
            match number {
                0 => rest.cut(100_000).silent(),
                1 => rest.cut(0).silent(),
                2 => rest.cut(50_000).reset(),
                3 => rest.cut(0).reset(),
                4 => Answer::new(503, ""),
                _ => rest,
            }
        })
        .await;
    assert_eq!(fetch(&server).await.unwrap(), layer());
    assert_eq!(server.seen(&layer_path()).len(), 6);
}

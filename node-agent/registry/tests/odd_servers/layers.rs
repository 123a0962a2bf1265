//! Layers that break, change and lie.

use crate::{
    LAYER_BYTES, fetch, layer, layer_path, one_image,
    server::{Answer, digest},
};

#[tokio::test]
async fn a_layer_goes_on_where_it_broke() {
    let server = one_image()
        .serve_layer(|layer, request, number| {
            let status = if number == 0 { 200 } else { 206 };
            let cut = if number < 2 { 100_000 } else { LAYER_BYTES };
            Answer::new(status, &layer[request.from..]).cut(cut)
        })
        .await;
    assert_eq!(fetch(&server).await.unwrap(), layer());
    let asked: Vec<usize> = server.seen(&layer_path()).iter().map(|request| request.from).collect();
    assert_eq!(asked, [0, 100_000, 200_000]);
}

#[tokio::test]
async fn the_whole_instead_of_a_part_is_noticed_whatever_it_is_called() {
    for status in [200, 206] {
        let server = one_image()
            .serve_layer(move |layer, _, number| {
                Answer::new(status, layer).cut(if number < 2 { 100_000 * (number + 1) } else { LAYER_BYTES })
            })
            .await;
        assert_eq!(fetch(&server).await.unwrap(), layer());
    }
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
    let wrong = |status: u16, bytes: Vec<u8>| {
        one_image().serve_layer(move |_, _, _| Answer::new(status, bytes.clone()))
    };
    let mut flipped = layer();
    flipped[LAYER_BYTES - 1] ^= 1;
    for (server, reason) in [
        (wrong(200, layer()[1..].to_vec()).await, "TruncatedLayer"),
        (wrong(206, [layer(), layer()].concat()).await, "TruncatedLayer"),
        (wrong(416, Vec::new()).await, "TruncatedLayer"),
        (wrong(200, flipped.clone()).await, "DigestMismatch"),
        (wrong(206, flipped).await, "DigestMismatch"),
        (wrong(404, Vec::new()).await, "ImageNotFound"),
    ] {
        let error = fetch(&server).await.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (reason, false), "{error}");
        assert!(error.to_string().contains(&digest(&layer())), "{error}");
    }
}

#[tokio::test]
async fn a_part_that_begins_elsewhere_is_found_out_at_the_end() {
    let server = one_image()
        .serve_layer(|layer, request, number| match number {
            0 => Answer::new(200, layer).cut(100_000),
            _ => Answer::new(206, &layer[..LAYER_BYTES - request.from]),
        })
        .await;
    assert_eq!(fetch(&server).await.unwrap_err().reason(), "DigestMismatch");
}

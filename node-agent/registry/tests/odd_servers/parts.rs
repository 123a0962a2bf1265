//! Parts of layers, from servers that give something else.

use std::ops::Range;

use evenkeel_crds::managed_os_image::{Mirror, Pull};
use evenkeel_registry::{Registry, RegistryError, RegistryOptions};

use crate::{
    LAYER_BYTES, layer, layer_path, machine, one_image, options,
    server::{Answer, Request, Server},
};

/// What is asked for.
const PART: Range<usize> = 100_000..200_000;

async fn part_with(options: RegistryOptions, server: &Server) -> Result<Vec<u8>, RegistryError> {
    let registry = Registry::new(options)?;
    let image = registry.image(&server.image(), &machine()).await?;
    registry.part(&image, &image.layers[0], PART.start as u64..PART.end as u64).read().await
}

async fn part(server: &Server) -> Result<Vec<u8>, RegistryError> {
    part_with(options(), server).await
}

/// What was asked for of the layer, in order.
fn asked(server: &Server) -> Vec<(usize, usize)> {
    let seen = server.seen(&layer_path());
    seen.iter().map(|request| (request.from, request.before.expect("an end is always told"))).collect()
}

/// What a server makes of a layer.
type Odd<'a> = &'a dyn Fn(&[u8]) -> Answer;

/// The bytes that a request names.
fn good(layer: &[u8], request: &Request) -> Answer {
    Answer::between(layer, request.from, request.before.unwrap())
}

#[tokio::test]
async fn answers_that_are_not_the_part_mean_that_there_are_none() {
    let multipart = "multipart/byteranges; boundary=x";
    let in_pieces = |layer: &[u8]| {
        let head = b"--x\r\nContent-Range: bytes 100000-199999/300000\r\n\r\n".as_slice();
        [head, &layer[PART], b"\r\n--x--\r\n"].concat()
    };
    let ranged = |layer: &[u8], bytes: Range<usize>, range: &str| {
        Answer::new(206, &layer[bytes]).header("Content-Range", range)
    };
    let cases: [(&str, Odd<'_>); 12] = [
        ("the whole", &|layer| Answer::new(200, layer)),
        ("the whole, called a part", &|layer| ranged(layer, 0..LAYER_BYTES, "bytes 0-299999/300000")),
        ("no range", &|layer| Answer::new(206, &layer[PART])),
        ("in pieces", &|layer| Answer::new(206, in_pieces(layer)).header("Content-Type", multipart)),
        ("an earlier beginning", &|layer| ranged(layer, 99_999..200_000, "bytes 99999-199999/300000")),
        ("a later beginning", &|layer| ranged(layer, 100_001..200_000, "bytes 100001-199999/300000")),
        ("a later end", &|layer| ranged(layer, 100_000..200_001, "bytes 100000-200000/300000")),
        ("of another size", &|layer| ranged(layer, PART, "bytes 100000-199999/300001")),
        ("longer than it says", &|layer| ranged(layer, 100_000..200_001, "bytes 100000-199999/300000")),
        ("shorter than it says", &|layer| ranged(layer, 100_000..199_999, "bytes 100000-199999/300000")),
        ("not satisfiable", &|_| Answer::new(416, "").header("Content-Range", "bytes */300000")),
        ("not satisfiable, no range", &|_| Answer::new(416, "")),
    ];
    for (name, odd) in cases {
        let answer = odd(&layer());
        let server = one_image().serve_layer(move |_, _, _| answer.clone()).await;
        let error = part(&server).await.unwrap_err();
        assert!(error.is_no_parts() && !error.retryable(), "{name}: {error}");
        assert!(error.to_string().contains("bytes 100000"), "{name}: {error}");
        assert_eq!(asked(&server), [(PART.start, PART.end)], "{name}");
    }
}

#[tokio::test]
async fn a_part_goes_on_where_it_broke() {
    let server = one_image()
        .serve_layer(|layer, request, number| match number {
            0 => good(layer, request).cut(30_000),
            1 => Answer::new(429, "").header("Retry-After", "0"),
            2 => good(layer, request).cut(30_000).reset(),
            3 => Answer::new(503, ""),
            4 => good(layer, request).cut(0).silent(),
            _ => good(layer, request),
        })
        .await;
    assert_eq!(part(&server).await.unwrap(), layer()[PART]);
    let asked = asked(&server);
    assert_eq!(asked[..2], [(100_000, 200_000), (130_000, 200_000)]);
    // A reset may take back what was sent a moment before.
    assert!(asked[3].0 <= 160_000 && asked.len() == 6, "{asked:?}");
    assert!(asked.is_sorted() && asked.iter().all(|(_, before)| *before == PART.end), "{asked:?}");
}

#[tokio::test]
async fn less_than_was_asked_for_is_taken_and_the_rest_asked_for() {
    let server = one_image()
        .serve_layer(|layer, request, _| {
            Answer::between(layer, request.from, PART.end.min(request.from + 30_000))
        })
        .await;
    assert_eq!(part(&server).await.unwrap(), layer()[PART]);
    let from: Vec<usize> = asked(&server).into_iter().map(|(from, _)| from).collect();
    assert_eq!(from, [100_000, 130_000, 160_000, 190_000]);
}

#[tokio::test]
async fn more_than_was_asked_for_is_not_taken() {
    let server = one_image()
        .serve_layer(|layer, request, number| match number {
            0 => Answer::new(206, &layer[PART.start..])
                .header("Content-Range", "bytes 100000-199999/300000")
                .without_length(),
            _ => good(layer, request),
        })
        .await;
    assert_eq!(part(&server).await.unwrap(), layer()[PART]);
}

#[tokio::test]
async fn a_registry_that_no_longer_gives_parts_in_the_middle_of_one_is_not_asked_again() {
    let server = one_image()
        .serve_layer(|layer, request, number| match number {
            0 => good(layer, request).cut(30_000),
            _ => Answer::new(200, layer),
        })
        .await;
    let error = part(&server).await.unwrap_err();
    assert!(error.is_no_parts(), "{error}");
    assert_eq!(asked(&server), [(100_000, 200_000), (130_000, 200_000)]);
}

#[tokio::test]
async fn a_part_of_what_is_not_there_and_of_a_registry_that_stays_busy() {
    for (status, reason, requests) in [(404, "ImageNotFound", 1), (429, "RegistryUnavailable", 4)] {
        let server = one_image().serve_layer(move |_, _, _| Answer::new(status, "")).await;
        let error = part(&server).await.unwrap_err();
        assert!(error.reason() == reason && !error.is_no_parts(), "{error}");
        assert_eq!(asked(&server).len(), requests, "{status}");
    }
}

#[tokio::test]
async fn a_mirror_without_parts_is_passed_over_and_asked_for_whole_layers_all_the_same() {
    let origin = one_image().serve_layer(|layer, request, _| good(layer, request)).await;
    let mirror = one_image().serve_layer(|layer, _, _| Answer::new(200, layer)).await;
    let mirrors =
        vec![Mirror { registry: "*".into(), url: format!("http://{}", mirror.address), resolve: false }];
    let options = RegistryOptions { pull: Pull { mirrors, ..options().pull }, ..options() };
    assert_eq!(part_with(options.clone(), &origin).await.unwrap(), layer()[PART]);
    assert_eq!((asked(&mirror).len(), asked(&origin).len()), (1, 1));
    assert_eq!(crate::fetch_with(options, &origin).await.unwrap(), layer());
    assert_eq!((mirror.seen(&layer_path()).len(), asked(&origin).len()), (2, 1));
}

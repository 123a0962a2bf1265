//! Whether layers are there: only a no of everybody counts.

use std::time::Duration;

use evenkeel_crds::managed_os_image::Mirror;
use evenkeel_registry::{Registry, RegistryError, RegistryOptions};

use crate::{
    layer, layer_path, machine, one_image, options, pull,
    server::{Answer, Request, Server, digest},
};

/// What a place answers when it is asked for the layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    HasIt,
    HasItNot,
    /// It says no to `HEAD`, and gives bytes.
    NoHead,
    /// It answers `HEAD` with this status, and gives nothing either.
    Status(u16),
    Silent,
}

fn answer(place: Place, layer: &[u8], request: &Request) -> Answer {
    match (place, request.method.as_str()) {
        (Place::HasIt, "HEAD") => Answer::new(200, ""),
        (Place::HasIt | Place::NoHead, "GET") => match request.before {
            Some(before) => Answer::between(layer, request.from, before),
            None => Answer::new(200, layer),
        },
        (Place::Status(status), _) => Answer::new(status, ""),
        (Place::Silent, _) => Answer::new(200, "x").cut(0).silent(),
        _ => Answer::new(404, ""),
    }
}

async fn serve(place: Place) -> Server {
    one_image().serve_layer(move |layer, request, _| answer(place, layer, request)).await
}

fn mirrored(mirror: Option<&Server>) -> RegistryOptions {
    let mut options = options();
    options.limits.connect = Duration::from_secs(2);
    options.pull.mirrors.extend(mirror.map(|server| Mirror {
        registry: "*".into(),
        url: format!("http://{}", server.address),
        resolve: false,
    }));
    options
}

async fn ask(options: RegistryOptions, origin: &Server) -> Result<(), RegistryError> {
    let registry = Registry::new(options).unwrap();
    let image = registry.image(&origin.image(), &machine()).await.unwrap();
    registry.has_layers(&image, &[&image.layers[0]]).await
}

#[tokio::test]
async fn only_what_nobody_has_is_missed() {
    use Place::{HasIt, HasItNot, NoHead, Silent, Status};
    for (mirror, origin, is_missed) in [
        (None, HasIt, false),
        (None, HasItNot, true),
        (None, NoHead, false),
        (None, Status(405), false),
        (None, Status(403), false),
        (None, Status(429), false),
        (None, Status(500), false),
        (None, Silent, false),
        (Some(HasItNot), HasItNot, true),
        (Some(HasItNot), HasIt, false),
        (Some(HasIt), HasItNot, false),
        (Some(NoHead), HasItNot, false),
        (Some(Status(405)), HasItNot, false),
        (Some(Status(500)), HasItNot, false),
        (Some(Silent), HasItNot, false),
    ] {
        let place = format!("{mirror:?} {origin:?}");
        let mirror = match mirror {
            Some(mirror) => Some(serve(mirror).await),
            None => None,
        };
        let origin = serve(origin).await;
        let asked = ask(mirrored(mirror.as_ref()), &origin).await;
        assert_eq!(asked.is_err(), is_missed, "{place}: {asked:?}");
        if let Err(error) = asked {
            let missing = format!("blob {} of {}", digest(&layer()), origin.repository());
            assert!(error.is_not_found() && error.to_string().contains(&missing), "{place}: {error}");
        }
    }
}

#[tokio::test]
async fn where_a_layer_is_no_byte_of_it_is_asked_for() {
    let origin = serve(Place::HasIt).await;
    ask(mirrored(None), &origin).await.unwrap();
    let methods: Vec<String> = origin.seen(&layer_path()).into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD"]);
}

/// What a mirror says when it is asked so says nothing of what it gives.
#[tokio::test]
async fn a_mirror_that_does_not_know_how_to_answer_is_asked_for_the_layer_all_the_same() {
    let mirror = one_image()
        .serve_layer(|layer, request, _| match request.method.as_str() {
            "HEAD" => Answer::new(500, ""),
            _ => Answer::new(200, layer),
        })
        .await;
    let origin = serve(Place::HasItNot).await;
    let registry = Registry::new(mirrored(Some(&mirror))).unwrap();
    let image = registry.image(&origin.image(), &machine()).await.unwrap();
    registry.has_layers(&image, &[&image.layers[0]]).await.unwrap();
    assert_eq!(pull(&registry, &image).await.unwrap(), layer());
}

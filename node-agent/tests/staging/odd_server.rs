//! A registry that misbehaves as it is told to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    image::Image,
    registry::{PASSWORD, USER},
};

const PIECE: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What it does to the last layer, or to everybody.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "any of them goes with any other")]
pub struct Habits {
    /// Bytes of the last layer that are not sent because the connection breaks shortly before, each once.
    pub cuts: Vec<u64>,
    /// Every answer begins at the beginning.
    pub no_ranges: bool,
    /// Requests for the last layer that are told to come again in two seconds.
    pub busy: u32,
    /// The last layer has a byte less.
    pub shorter: bool,
    /// The last layer has other bytes.
    pub flipped: bool,
    /// Byte of the last layer after which no more comes, and the connection stays.
    pub stall_at: Option<u64>,
    /// Each layer but the last ends when the next one was asked for.
    pub holds: bool,
    /// Parts of the last layer that begin before this byte end when the one that begins there was asked for.
    pub holds_parts_before: Option<u64>,
    /// Wants tokens, each good for so many requests.
    pub token_uses: Option<u32>,
}

struct State {
    documents: BTreeMap<String, (String, Bytes)>,
    odd: String,
    /// The layers' paths, base first.
    layers: Vec<String>,
    habits: Habits,
    address: String,
    cuts: Mutex<Vec<u64>>,
    busy: AtomicU32,
    sent: AtomicU64,
    tokens: AtomicU32,
    uses_left: Mutex<u32>,
    ranges: Mutex<Vec<(String, u64)>>,
}

pub struct OddServer {
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl OddServer {
    pub async fn start(image: &Image, habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut documents = BTreeMap::new();
        let manifest = (image.manifest.media_type.clone(), Bytes::from(image.manifest.bytes.clone()));
        documents.insert("/v2/os/manifests/1".to_owned(), manifest);
        for blob in image.layers.iter().chain([&image.config]) {
            let content = ("application/octet-stream".to_owned(), Bytes::from(blob.bytes.clone()));
            documents.insert(format!("/v2/os/blobs/{}", blob.digest), content);
        }
        let layers: Vec<_> =
            image.layers.iter().map(|layer| format!("/v2/os/blobs/{}", layer.digest)).collect();
        let odd = layers.last().unwrap().clone();
        if let Some((_, bytes)) = documents.get_mut(&odd) {
            let mut changed = bytes.to_vec();
            if habits.shorter {
                changed.pop();
            }
            if habits.flipped {
                // The time in a gzip header: the stream stays readable.
                changed[4] ^= 1;
            }
            *bytes = changed.into();
        }
        let state = Arc::new(State {
            documents,
            odd,
            layers,
            address: listener.local_addr().unwrap().to_string(),
            cuts: Mutex::new(habits.cuts.clone()),
            busy: AtomicU32::new(habits.busy),
            sent: AtomicU64::new(0),
            tokens: AtomicU32::new(0),
            uses_left: Mutex::new(0),
            ranges: Mutex::default(),
            habits,
        });
        let task = tokio::spawn(serve(listener, state.clone()));
        Self { state, task }
    }

    pub fn address(&self) -> &str {
        &self.state.address
    }

    pub fn reference(&self) -> String {
        format!("{}/os:1", self.state.address)
    }

    /// First bytes that were asked for, of a blob.
    pub fn ranges(&self, digest: &str) -> Vec<u64> {
        let ranges = self.state.ranges.lock().unwrap();
        ranges.iter().filter(|(path, _)| path.ends_with(digest)).map(|(_, from)| *from).collect()
    }

    /// Bytes of the last layer that were sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    pub fn tokens_given(&self) -> u32 {
        self.state.tokens.load(Ordering::SeqCst)
    }
}

impl Drop for OddServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(state.answer(&request)) }
            });
            // A connection that breaks is what this server is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl State {
    fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        if path == "/token" {
            return self.token(shown.as_deref());
        }
        if self.habits.token_uses.is_some() && !self.is_known(shown.as_deref()) {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="odd""#, self.address);
            return whole(
                Response::builder().status(401).header("WWW-Authenticate", challenge),
                "who are you?",
            );
        }
        let Some((media_type, bytes)) = self.documents.get(&path) else {
            return whole(Response::builder().status(404), "{}");
        };
        if request.method() == Method::HEAD {
            return whole(Response::builder(), "");
        }
        let odd = path == self.odd;
        if odd
            && self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return whole(Response::builder().status(429).header("Retry-After", "2"), "later");
        }
        let range = request.headers().get(RANGE).map(|value| value.to_str().unwrap());
        let range = range.map(|text| text["bytes=".len()..].split_once('-').unwrap());
        let from = range.map_or(0, |(from, _)| from.parse::<usize>().unwrap());
        let end = range.and_then(|(_, last)| last.parse::<usize>().ok()).map_or(bytes.len(), |last| last + 1);
        let next = self.layers.iter().skip_while(|layer| **layer != path).nth(1);
        let next = next.filter(|_| self.habits.holds).cloned();
        self.ranges.lock().unwrap().push((path, from as u64));
        let builder = Response::builder().header(CONTENT_TYPE, media_type);
        let (builder, from, end) = if range.is_some() && !self.habits.no_ranges {
            let range = format!("bytes {from}-{}/{}", end - 1, bytes.len());
            (builder.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, range), from, end)
        } else {
            (builder, 0, bytes.len())
        };
        let builder = builder.header(CONTENT_LENGTH, end - from);
        builder.body(self.pieces(&bytes.slice(..end), from, odd, next)).unwrap()
    }

    /// The last piece waits until `next` was asked for.
    fn pieces(self: &Arc<Self>, bytes: &Bytes, from: usize, odd: bool, next: Option<String>) -> Body {
        let (state, bytes, begin) = (self.clone(), bytes.clone(), from as u64);
        let pieces = stream::unfold(Some(from), move |at| {
            let (state, bytes, next) = (state.clone(), bytes.clone(), next.clone());
            async move {
                let at = at.filter(|at| *at < bytes.len())?;
                let end = bytes.len().min(at + PIECE);
                if odd && state.breaks(at as u64..end as u64) {
                    return Some((Err(std::io::ErrorKind::ConnectionReset.into()), None));
                }
                if odd && state.habits.stall_at.is_some_and(|stall| at as u64 >= stall) {
                    std::future::pending::<()>().await;
                }
                while end == bytes.len() && odd && state.holds(begin) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                while end == bytes.len() && next.as_ref().is_some_and(|next| !state.was_asked_for(next)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                if odd {
                    state.sent.fetch_add((end - at) as u64, Ordering::SeqCst);
                }
                Some((Ok(Frame::data(bytes.slice(at..end))), Some(end)))
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    fn was_asked_for(&self, wanted: &str) -> bool {
        self.ranges.lock().unwrap().iter().any(|(path, _)| path == wanted)
    }

    /// Whether the part of the last layer that begins there is not to end yet.
    fn holds(&self, begin: u64) -> bool {
        let before = self.habits.holds_parts_before.filter(|before| begin < *before);
        let asked = |from| self.ranges.lock().unwrap().contains(&(self.odd.clone(), from));
        before.is_some_and(|before| !asked(before))
    }

    /// Whether there is a cut in a piece; each happens once.
    fn breaks(&self, piece: std::ops::Range<u64>) -> bool {
        let mut cuts = self.cuts.lock().unwrap();
        let before = cuts.len();
        cuts.retain(|cut| !piece.contains(cut));
        cuts.len() < before
    }

    fn token(&self, shown: Option<&str>) -> Response<Body> {
        let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        if shown != Some(&expected) {
            return whole(Response::builder().status(401), "wrong");
        }
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        *self.uses_left.lock().unwrap() = self.habits.token_uses.unwrap();
        whole(Response::builder(), &format!(r#"{{"token":"token-{number}","expires_in":60}}"#))
    }

    fn is_known(&self, shown: Option<&str>) -> bool {
        let current = format!("Bearer token-{}", self.tokens.load(Ordering::SeqCst));
        let mut left = self.uses_left.lock().unwrap();
        if shown != Some(&current) || *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

fn whole(builder: hyper::http::response::Builder, text: &str) -> Response<Body> {
    builder
        .body(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

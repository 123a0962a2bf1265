//! A server that speaks HTTP/2 and nothing else.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use evenkeel_e2e::registry::Certificate;
use http_body_util::StreamBody;
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Store, layer_path, server};

pub struct Server {
    pub address: String,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    layer_requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Server {
    /// Serves `store`; each of the first answers with the layer is reset after so many bytes.
    pub async fn start(certificate: &Certificate, store: Store, resets: &'static [usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = server::acceptor(certificate, &["h2"]);
        let log = Arc::<Log>::default();
        let log_here = log.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                log_here.connections.fetch_add(1, Ordering::Relaxed);
                let (store, log) = (store.clone(), log_here.clone());
                let service = service_fn(move |request| {
                    let answer = answer(&store, &log, resets, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, log, task }
    }

    pub fn layer_requests(&self) -> usize {
        self.log.layer_requests.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = StreamBody<futures::stream::Iter<std::vec::IntoIter<io::Result<Frame<Bytes>>>>>;

fn answer(store: &Store, log: &Log, resets: &[usize], request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let Some(whole) = store.0.get(path) else {
        return Response::builder().status(404).body(body(Vec::new())).unwrap();
    };
    let range = request.headers().get("range").map(|value| value.to_str().unwrap());
    let from = range.map_or(0, |range| range[6..range.len() - 1].parse().unwrap());
    let mut rest = whole[from..].to_vec();
    let mut response = Response::builder().header("content-length", rest.len());
    if from > 0 {
        let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        response = response.status(206).header("content-range", range);
    }
    let mut pieces = Vec::new();
    if path == layer_path()
        && let Some(&reset) = resets.get(log.layer_requests.fetch_add(1, Ordering::Relaxed))
    {
        rest.truncate(reset);
        pieces.push(Err(io::Error::other("reset")));
    }
    pieces.insert(0, Ok(Frame::data(rest.into())));
    response.body(body(pieces)).unwrap()
}

fn body(pieces: Vec<io::Result<Frame<Bytes>>>) -> Body {
    StreamBody::new(futures::stream::iter(pieces))
}

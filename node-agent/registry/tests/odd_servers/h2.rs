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
use futures::stream::{self, BoxStream, StreamExt as _};
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
    /// Serves `store`; the first answers with the layer stop early.
    pub async fn start(certificate: &Certificate, store: Store, stops: &'static [Stop]) -> Self {
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
                    let answer = answer(&store, &log, stops, &request);
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

/// How a stream stops after so many bytes.
#[derive(Clone, Copy)]
pub enum Stop {
    Reset(usize),
    Silence(usize),
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

fn answer(store: &Store, log: &Log, stops: &[Stop], request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let Some(whole) = store.0.get(path) else {
        return Response::builder().status(404).body(StreamBody::new(stream::empty().boxed())).unwrap();
    };
    let range = request.headers().get("range").map(|value| value.to_str().unwrap());
    let from = range.map_or(0, |range| range[6..range.len() - 1].parse().unwrap());
    let mut rest = whole[from..].to_vec();
    let mut response = Response::builder().header("content-length", rest.len());
    if from > 0 {
        let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        response = response.status(206).header("content-range", range);
    }
    let number =
        if path == layer_path() { log.layer_requests.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
    let end = match stops.get(number) {
        None => stream::empty().boxed(),
        Some(&Stop::Reset(bytes)) => {
            rest.truncate(bytes);
            stream::iter([Err(io::Error::other("reset"))]).boxed()
        }
        Some(&Stop::Silence(bytes)) => {
            rest.truncate(bytes);
            stream::pending().boxed()
        }
    };
    let begin = stream::iter([Ok(Frame::data(rest.into()))]);
    response.body(StreamBody::new(begin.chain(end).boxed())).unwrap()
}

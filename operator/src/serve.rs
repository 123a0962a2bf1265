//! `/metrics`, `/healthz` and `/readyz` on one port.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, body::Incoming, header, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::metrics::Metrics;

/// Scrapes and probes of a cluster need two or three; more are somebody's mistake.
const CONNECTIONS_MAX: usize = 64;
/// A client that sends its request slower than this is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Those who accept this get it; others get Prometheus' own format.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// What the endpoints tell.
#[derive(Clone)]
pub struct Told {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether everything was listed once, so that this replica could act.
    pub ready: Arc<AtomicBool>,
}

/// Serves, for as long as the process lives.
pub async fn serve(address: SocketAddr, told: Told) -> anyhow::Result<()> {
    let listener = listen(address)
        .await
        .with_context(|| format!("listen on {address} for metrics and probes: is the port free?"))?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics and probes");
    tokio::spawn(accept(listener, told));
    Ok(())
}

/// `[::]` stands for IPv4 and IPv6, also on a machine whose kernel has no IPv6.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

async fn accept(listener: TcpListener, told: Told) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let told = told.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let answer = answer(&request, &told);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the metrics port broke");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/metrics" => {
            let accepted = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
            metrics(&told.metrics, accepted.is_some_and(|accepted| accepted.contains(OPEN_METRICS)))
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if told.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the cluster was not listed yet\n"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn metrics(metrics: &Metrics, open: bool) -> Response<Full<Bytes>> {
    let (body, kind) = if open {
        (metrics.open_metrics(), "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
    };
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

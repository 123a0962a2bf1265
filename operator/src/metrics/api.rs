//! How many requests the API server gets.

use std::task::{Context, Poll};

use futures::{FutureExt as _, future::BoxFuture};
use hyper::{Request, Response};
use kube::client::Body;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tower::{Layer, Service};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    method: String,
    code: String,
}

/// Counts the requests of the clients that it is put around. A watch is one request.
#[derive(Clone, Default)]
pub struct CountRequests(Family<Asked, Counter>);

impl CountRequests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let help =
            "Requests to the API server by method and status code; the code of one without an answer is none";
        registry.register("api_requests", help, it.0.clone());
        it
    }

    pub(super) fn asked(&self, method: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.0.get_or_create(&Asked { method: method.to_owned(), code }).inc();
    }
}

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counter: self.clone() }
    }
}

/// A client whose requests are counted.
pub struct Counted<S> {
    inner: S,
    counter: CountRequests,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().as_str().to_owned();
        let counter = self.counter.clone();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            counter.asked(&method, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        }
        .boxed()
    }
}

//! A server that answers what it is told to, byte by byte.

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
};

use evenkeel_e2e::registry::Certificate;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// First byte that is wanted.
    pub from: usize,
    /// The byte behind the last one that is wanted; absent: all.
    pub before: Option<usize>,
    pub authorization: Option<String>,
    /// The entity tag of what is known.
    pub if_none_match: Option<String>,
    pub body: String,
}

#[derive(Clone)]
pub struct Answer {
    head: String,
    body: Vec<u8>,
    /// What `Content-Length` says; absent: the end of the connection is the end.
    length: Option<usize>,
    end: End,
}

/// What comes after the body.
#[derive(Clone, Copy)]
enum End {
    Close,
    Silence,
    Reset,
    /// The body again, and again.
    Again,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            head: format!("HTTP/1.1 {status} X\r\nConnection: close\r\n"),
            length: Some(body.len()),
            body,
            end: End::Close,
        }
    }

    /// The rest of something, as it was asked for.
    pub fn part(whole: &[u8], from: usize) -> Self {
        Self::between(whole, from, whole.len())
    }

    /// Some bytes of something, as they were asked for.
    pub fn between(whole: &[u8], from: usize, before: usize) -> Self {
        let range = format!("bytes {from}-{}/{}", before - 1, whole.len());
        Self::new(206, &whole[from..before]).header("Content-Range", &range)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.head, "{name}: {value}\r\n").unwrap();
        self
    }

    /// The connection breaks after so many bytes.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// How many bytes there will be is not said.
    pub fn without_length(mut self) -> Self {
        self.length = None;
        self
    }

    /// Nothing comes any more, and the connection stays.
    pub fn silent(mut self) -> Self {
        self.end = End::Silence;
        self
    }

    /// The body comes again and again, and how many bytes there will be is not said.
    pub fn endless(mut self) -> Self {
        self.end = End::Again;
        self.without_length()
    }

    /// The connection is reset.
    pub fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

/// What makes a stream of this certificate, for these protocols.
pub fn acceptor(certificate: &Certificate, protocols: &[&str]) -> TlsAcceptor {
    let chain = CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

impl Server {
    /// Answers with what `answer` makes of a request and its number among those for the same path, from 0.
    pub async fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, answer).await
    }

    /// The same with TLS.
    pub async fn start_tls(
        certificate: &Certificate,
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(acceptor(certificate, &["http/1.1"])), answer).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, answer, log) = (tls.clone(), answer.clone(), log.clone());
                // A client that goes away is no matter here.
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &*answer, &log).await,
                        Some(tls) => serve(tls.accept(stream).await?, &*answer, &log).await,
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    /// Its repository, which all of these servers call the same.
    pub fn repository(&self) -> String {
        format!("{}/os", self.address)
    }

    pub fn image(&self) -> String {
        format!("{}/os:1", self.address)
    }

    /// All requests.
    pub fn all(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests for a path.
    pub fn seen(&self, path: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that can be reset.
trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn reset(self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn reset(self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Stream for TlsStream<TcpStream> {
    fn reset(self) -> io::Result<()> {
        self.into_inner().0.reset()
    }
}

async fn serve(
    mut stream: impl Stream,
    answer: &(impl Fn(&Request, usize) -> Answer + Send + Sync),
    log: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |wanted: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    let (from, before) = header("range").map_or((0, None), |range| wanted(&range));
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        from,
        before,
        authorization: header("authorization"),
        if_none_match: header("if-none-match"),
        body: String::from_utf8(body).unwrap(),
    };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter().filter(|seen| seen.path == request.path).count() - 1
    };
    let Answer { head, body, length, end } = answer(&request, number);
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    stream.write_all(format!("{head}{length}\r\n").as_bytes()).await?;
    stream.write_all(&body).await?;
    match end {
        End::Close => stream.shutdown().await,
        End::Silence => std::future::pending().await,
        End::Reset => stream.reset(),
        End::Again => loop {
            stream.write_all(&body).await?;
        },
    }
}

/// The first byte that a `Range` asks for, and the one behind the last.
fn wanted(range: &str) -> (usize, Option<usize>) {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let before = (!last.is_empty()).then(|| last.parse::<usize>().unwrap() + 1);
    (first.parse().unwrap(), before)
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

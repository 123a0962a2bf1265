//! A server that answers what it is told to, byte by byte.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// First byte that is wanted.
    pub from: usize,
    pub authorization: Option<String>,
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
        let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        Self::new(206, &whole[from..]).header("Content-Range", &range)
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

impl Server {
    /// Answers with what `answer` makes of a request and its number among those for the same path, from 0.
    pub async fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move {
                    // A client that goes away is no matter here.
                    let _ = serve(stream, &*answer, &log).await;
                });
            }
        });
        Self { address, seen, task }
    }

    pub fn image(&self) -> String {
        format!("{}/os:1", self.address)
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

async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&Request, usize) -> Answer + Send + Sync),
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |wanted: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    let from = header("range").map_or(0, |range| range[6..range.len() - 1].parse().unwrap());
    let path = head.split([' ', '?']).nth(1).unwrap().to_owned();
    let request = Request { path, from, authorization: header("authorization") };
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
        End::Reset => stream.set_zero_linger(),
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

//! A server of one document behind a plain address, which its owner changes as he likes.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that runs until it is dropped.
pub struct ListServer {
    /// The document's address.
    pub uri: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    body: String,
    /// Status of each answer.
    answered: Vec<u16>,
}

impl ListServer {
    /// Serves `body`.
    pub async fn start(body: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}/channel.json", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State { body: body.to_owned(), ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client may go away.
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { uri, state, task })
    }

    /// Serves something else from now on.
    pub fn serve(&self, body: &str) {
        body.clone_into(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).body);
    }

    /// Status of each answer so far.
    pub fn answered(&self) -> Vec<u16> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answered.clone()
    }
}

impl Drop for ListServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let text = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let etag = format!(
            "\"{:x}\"",
            state.body.bytes().fold(7_u64, |sum, byte| sum * 31 % 999_983 + u64::from(byte))
        );
        let known = head.contains(&format!("if-none-match: {etag}"));
        let (status, body) = if known { (304, String::new()) } else { (200, state.body.clone()) };
        state.answered.push(status);
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\nETag: {etag}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

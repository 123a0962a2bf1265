//! A proxy that gives tunnels, as RFC 9110 has them ("CONNECT").

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Where each tunnel was to lead, and what was said in `Proxy-Authorization`.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

pub struct Tunnel {
    pub address: String,
    asked: Asked,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Lets in everybody, or those who say this in `Proxy-Authorization`.
    pub async fn start(password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Asked::default();
        let log = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Either end may go away when it likes.
                tokio::spawn(serve(stream, password, log.clone()));
            }
        });
        Self { address, asked, task }
    }

    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, password: Option<&str>, log: Asked) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let said = headers.find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    let said = said.map(|(_, value)| value.to_owned());
    log.lock().unwrap().push((target.clone(), said.clone()));
    if password.is_some() && said.as_deref() != password {
        let refusal = b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(refusal).await;
    }
    let mut there = TcpStream::connect(target).await?;
    stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut there).await.map(drop)
}

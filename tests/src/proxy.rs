//! The way to a server, which its owner cuts and heals.

use std::io;

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

const CHUNK: usize = 16 << 10;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All goes through.
    Open,
    /// They end, and so does each new one.
    Cut,
    /// They stay, and nothing gets through until they are cut or the way is open again; what was sent meanwhile arrives
    /// then, also when who sent it has given up.
    Silent,
}

/// A way that is there until this is dropped.
pub struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// An open way to a port of this machine.
    pub async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let way = watch::Sender::new(Way::Open);
        let task = tokio::spawn(serve(listener, to, way.subscribe()));
        Ok(Self { port, way, task })
    }

    /// The port at which it begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts it, or heals it.
    pub fn make(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // All connections are in it.
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, to: u16, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(from, to, way.clone()));
    }
}

/// An end of either side ends both; nobody is left who could be told why.
async fn connect(from: TcpStream, to: u16, way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (client_says, to_client) = from.into_split();
    let (server_says, to_server) = server.into_split();
    let both = async {
        tokio::join!(pump(client_says, to_server, way.clone()), pump(server_says, to_client, way.clone()))
    };
    let mut cut = way.clone();
    tokio::select! {
        _ = both => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if way.wait_for(|way| *way != Way::Silent).await.is_err() || length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}

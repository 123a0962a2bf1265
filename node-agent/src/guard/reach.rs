//! Whether a machine reaches the cluster at all: a connection to the API server, without a word on it.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs as _},
    thread,
    time::Duration,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// The API server does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the API server {address} could not be reached from the host ({source})")]
pub(super) struct Unreachable {
    address: String,
    source: io::Error,
}

/// Connects to `address` (`host:port`), asking a few times.
pub(super) fn reach(address: &str) -> Result<(), Unreachable> {
    for _ in 1..ATTEMPTS {
        if connect(address).is_ok() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    connect(address).map_err(|source| Unreachable { address: address.to_owned(), source })
}

fn connect(address: &str) -> io::Result<()> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for place in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, CONNECT_LIMIT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_reached_and_who_does_not_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        reach(&address).unwrap();
        drop(listener);
        let error = reach(&address).unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("refused"), "{error}");
    }
}

//! A receiver over TLS. The path of a webhook selects the answer, with as little work as possible.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

use crate::child;
use crate::tls::{self, TlsAddress};

/// The number of requests that [`HOLD`] waits for before it answers them all.
pub(crate) const HELD_REQUESTS: usize = 100;

/// Answers at once, and keeps the connection.
pub(crate) const KEEP: &str = "/keep";
/// Answers at once, and closes.
pub(crate) const CLOSE: &str = "/close";
/// Answers when [`HELD_REQUESTS`] requests wait for it.
pub(crate) const HOLD: &str = "/hold";

const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

/// Sends its address to the parent, and serves until the parent ends.
pub(crate) async fn serve() -> Result<()> {
    child::exit_with_parent();
    let (config, certificate) = tls::server()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    child::send(&TlsAddress { port: listener.local_addr()?.port(), certificate })?;
    let all_there = Arc::new(Barrier::new(HELD_REQUESTS));
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, all_there) = (acceptor.clone(), Arc::clone(&all_there));
        // A connection that the client breaks off is no error here.
        tokio::spawn(async move { drop(connection(stream, acceptor, &all_there).await) });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    all_there: &Barrier,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    // A whole request fits, so that reading takes few calls.
    let mut inbox = Vec::with_capacity(32 * 1024);
    while let Some(path) = read_request(&mut stream, &mut inbox).await? {
        match path.as_str() {
            CLOSE => {
                stream.write_all(CLOSED).await?;
                return stream.shutdown().await;
            }
            HOLD => {
                all_there.wait().await;
                stream.write_all(KEPT).await?;
            }
            _ => stream.write_all(KEPT).await?,
        }
    }
    Ok(())
}

/// Reads one request with its body, and returns the path; none at the end of the connection.
async fn read_request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    inbox: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    inbox.clear();
    loop {
        if let Some(request) = Request::parse(inbox)
            && inbox.len() >= request.length
        {
            return Ok(Some(request.path));
        }
        if stream.read_buf(inbox).await? == 0 {
            return Ok(None);
        }
    }
}

struct Request {
    path: String,
    /// Head and body, in bytes.
    length: usize,
}

impl Request {
    /// None while the head is incomplete, or when it is not of this benchmark's clients.
    fn parse(bytes: &[u8]) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let end = bytes.windows(END.len()).position(|window| window == END)?;
        let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let body: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        Some(Self { path, length: end + END.len() + body })
    }
}

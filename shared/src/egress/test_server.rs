//! Real servers on loopback, written byte by byte: what they do wrong is the test.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc as threads};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::Resolve;

/// Keeps paused time from running ahead while sockets are waited for: it moves by
/// `advance` alone.
pub(super) struct StillClock {
    _held: threads::Sender<()>,
}

impl StillClock {
    pub(super) fn hold() -> Self {
        let (held, released) = threads::channel::<()>();
        // While a blocking task runs, tokio does not advance by itself.
        drop(spawn_blocking(move || released.recv()));
        Self { _held: held }
    }
}

/// The name on the [`TestCertificate`].
pub(super) const NAME: &str = "receiver.example";

/// What a server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Sends these bytes and keeps the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Sends the first bytes, then the second ones over and over.
    Endless { first: &'static str, then: String, pause: Duration },
    /// Closes without a word.
    HangUp,
    /// Keeps the connection and says nothing.
    Silence,
}

impl Reply {
    pub(super) fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }

    pub(super) fn ok() -> Self {
        Self::text("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }
}

/// A server that gives the replies in order, one per request, and repeats the last.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    seen: watch::Sender<Seen>,
}

/// What a server was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    /// Heads and bodies as they came.
    pub(super) requests: Vec<String>,
    /// Bytes it could send before the client closed on it; endless replies only.
    pub(super) sent_endlessly: Option<usize>,
}

impl TestServer {
    pub(super) async fn plain(replies: Vec<Reply>) -> Self {
        Self::start(replies, None).await
    }

    pub(super) async fn tls(replies: Vec<Reply>, certificate: &TestCertificate) -> Self {
        Self::start(replies, Some(certificate.acceptor.clone())).await
    }

    async fn start(replies: Vec<Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = watch::Sender::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            let replies = Arc::new(replies);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.send_modify(|seen| seen.connections += 1);
                let (replies, seen, tls) = (Arc::clone(&replies), shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &replies, &seen).await,
                        Some(tls) => serve(tls.accept(stream).await?, &replies, &seen).await,
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// `http://127.0.0.1:port` and the path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `https://receiver.example:port` and the path.
    pub(super) fn named_url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.address.port())
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until it was sent so many requests.
    pub(super) async fn requests(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|seen| seen.requests.len() >= count).await.unwrap();
    }

    /// Waits until an endless reply was cut short, and says after how many bytes.
    pub(super) async fn cut_short(&self) -> usize {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|seen| seen.sent_endlessly.is_some()).await.unwrap().sent_endlessly.unwrap()
    }
}

/// An address without a listener, for as long as the socket lives: its port is taken.
pub(super) fn unused_address() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Lets clients and servers do whatever they can do without waiting: give a connection
/// back to its pool, notice that one was closed. All of them run on the test's own thread.
pub(super) async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

/// A server that has never heard of TLS and says so at once.
pub(super) async fn no_tls() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    address
}

/// A server that takes connections, tells of each, and says nothing.
pub(super) async fn mute() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // The client's first bytes: it is waiting for ours now.
            let _ = stream.read_u8().await;
            open.push(stream);
            let _ = connected.send(());
        }
    });
    (address, connections)
}

/// A server that answers a TLS 1.1 hello (RFC 4346 §7.4.1.3) to whatever it is offered, and
/// sends what it receives after that.
pub(super) async fn old_tls() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 5];
            stream.read_exact(&mut head).await.unwrap();
            let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            stream.read_exact(&mut hello).await.unwrap();

            // Version 3.2, random, no session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, null.
            let body = [&[3, 2][..], &[7; 32], &[0], &[0xc0, 0x13], &[0]].concat();
            let length = u8::try_from(body.len()).unwrap();
            let message = [&[2, 0, 0, length][..], &body].concat();
            let record = [&[0x16, 3, 2, 0, length + 4][..], &message].concat();
            stream.write_all(&record).await.unwrap();

            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let _ = sender.send(answer);
        }
    });
    (address, received)
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    replies: &[Reply],
    seen: &watch::Sender<Seen>,
) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream).await? {
        seen.send_modify(|seen| seen.requests.push(request));
        let reply = replies[(seen.borrow().requests.len() - 1).min(replies.len() - 1)].clone();
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Last(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Endless { first, then, pause } => {
                let mut sent = 0;
                stream.write_all(first.as_bytes()).await?;
                while stream.write_all(then.as_bytes()).await.is_ok() {
                    sent += then.len();
                    match pause {
                        Duration::ZERO => yield_now().await,
                        pause => sleep(pause).await,
                    }
                }
                seen.send_modify(|seen| seen.sent_endlessly = Some(sent));
                return Ok(());
            }
            Reply::HangUp => return Ok(()),
            Reply::Silence => std::future::pending().await,
        }
    }
    Ok(())
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Ok(Some(text.into_owned()));
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
}

/// A certificate for [`NAME`] that no public authority signed.
pub(super) struct TestCertificate {
    acceptor: TlsAcceptor,
    /// Trusts it, and nothing else.
    pub(super) client: rustls::ClientConfig,
}

impl TestCertificate {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { acceptor: TlsAcceptor::from(Arc::new(server)), client }
    }
}

/// A resolver that gives the answers in order and repeats the last; it remembers
/// what it was asked.
#[derive(Clone)]
pub(super) struct ScriptedResolver {
    answers: Vec<Answers>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
pub(super) enum Answers {
    Addresses(Vec<IpAddr>),
    Unknown,
    Never,
}

impl ScriptedResolver {
    pub(super) fn new(answers: impl IntoIterator<Item = Answers>) -> Self {
        Self { answers: answers.into_iter().collect(), asked: Arc::default() }
    }

    /// A resolver that always gives these addresses.
    pub(super) fn fixed(addresses: &[&str]) -> Self {
        Self::new([Answers::of(addresses)])
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Answers {
    pub(super) fn of(addresses: &[&str]) -> Self {
        Self::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }
}

impl Resolve for ScriptedResolver {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut asked = self.asked.lock().unwrap();
        let answers = self.answers[asked.len().min(self.answers.len() - 1)].clone();
        asked.push(name);
        async move {
            match answers {
                Answers::Addresses(addresses) => Ok(addresses),
                Answers::Unknown => Err(io::Error::other("no such name")),
                Answers::Never => std::future::pending().await,
            }
        }
        .boxed()
    }
}

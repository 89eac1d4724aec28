//! Receivers on a network of their own: most are well, one may be sick.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use http::Uri;
use hyper_util::rt::TokioIo;
use shared::egress::{Dial, Dialling, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

use crate::RECEIVERS;

/// What is wrong with a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sickness {
    /// Takes the request and never answers.
    Hangs,
    /// Sends the head of its answer, one byte a second.
    DripsHead,
    /// Says 200 at once, and sends the body of its answer, one byte a second.
    DripsBody,
    /// Sends a gigabyte.
    Floods,
    /// Breaks the connection.
    Resets,
    /// Refuses connections.
    Refuses,
    /// Neither accepts nor refuses connections.
    Swallows,
    /// Says 200 after ten seconds.
    Slow,
    /// Says 500.
    Fails,
}

impl Sickness {
    pub(crate) const ALL: [Self; 9] = [
        Self::Hangs,
        Self::DripsHead,
        Self::DripsBody,
        Self::Floods,
        Self::Resets,
        Self::Refuses,
        Self::Swallows,
        Self::Slow,
        Self::Fails,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::DripsHead => "drips head",
            Self::DripsBody => "drips body",
            Self::Floods => "floods",
            Self::Resets => "resets",
            Self::Refuses => "refuses",
            Self::Swallows => "swallows",
            Self::Slow => "is slow",
            Self::Fails => "fails",
        }
    }
}

/// The host of a receiver; the one with number 0 may be sick.
pub(crate) fn name(number: u64) -> String {
    format!("receiver-{number}.test")
}

/// All receivers, and when each answered which delivery.
pub(crate) struct ReceiverNetwork {
    sickness: Option<Sickness>,
    answered: Arc<Mutex<BTreeMap<String, Instant>>>,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl ReceiverNetwork {
    pub(crate) fn new(sickness: Option<Sickness>) -> Self {
        Self { sickness, answered: Arc::default() }
    }

    /// When each delivery was answered for the first time, by its `webhook-id`.
    pub(crate) fn answered(&self) -> BTreeMap<String, Instant> {
        self.answered.lock().unwrap().clone()
    }
}

impl Dial for ReceiverNetwork {
    fn dial(&self, uri: Uri) -> Dialling {
        let number = (0..RECEIVERS).find(|number| uri.host() == Some(&name(*number)));
        let sickness = self.sickness.filter(|_| number == Some(0));
        let answered = Arc::clone(&self.answered);
        async move {
            match sickness {
                Some(Sickness::Refuses) => {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                Some(Sickness::Swallows) => std::future::pending().await,
                Some(_) | None => {}
            }
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move {
                // The relay may end the connection at any time.
                drop(serve(theirs, sickness, &answered).await);
            });
            Ok(Box::new(TokioIo::new(ours)) as Box<dyn Stream>)
        }
        .boxed()
    }
}

async fn serve(
    mut stream: DuplexStream,
    sickness: Option<Sickness>,
    answered: &Mutex<BTreeMap<String, Instant>>,
) -> io::Result<()> {
    while let Some(id) = request(&mut stream).await? {
        match sickness {
            None => {
                sleep(thinking_time(&id)).await;
                answered.lock().unwrap().entry(id).or_insert_with(Instant::now);
                stream.write_all(OK).await?;
            }
            Some(Sickness::Hangs) => std::future::pending().await,
            Some(Sickness::DripsHead) => drip(&mut stream, OK).await?,
            Some(Sickness::DripsBody) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
                drip(&mut stream, &[b'.'; 1000]).await?;
            }
            Some(Sickness::Floods) => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                stream.write_all(head).await?;
                for _ in 0..100_000 {
                    stream.write_all(&[b'.'; 10_000]).await?;
                }
            }
            Some(Sickness::Resets) => return Ok(()),
            Some(Sickness::Refuses | Sickness::Swallows) => {}
            Some(Sickness::Slow) => {
                sleep(Duration::from_secs(10)).await;
                stream.write_all(OK).await?;
            }
            Some(Sickness::Fails) => {
                let answer = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await?;
            }
        }
    }
    Ok(())
}

async fn drip(stream: &mut DuplexStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// 50 to 250 ms, always the same for a delivery.
fn thinking_time(id: &str) -> Duration {
    let number = id.bytes().fold(0_u64, |sum, byte| sum * 31 % 1009 + u64::from(byte));
    Duration::from_millis(50 + number % 201)
}

/// Reads a request and returns its `webhook-id`, or none at the connection's end.
async fn request(stream: &mut DuplexStream) -> io::Result<Option<String>> {
    let mut inbox = Vec::new();
    loop {
        if let Ok(text) = std::str::from_utf8(&inbox)
            && let Some((head, body)) = text.split_once("\r\n\r\n")
        {
            let value = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let length: usize = value("content-length").unwrap_or("0").parse().unwrap_or(0);
            if body.len() >= length {
                return Ok(value("webhook-id").map(str::to_owned));
            }
        }
        if stream.read_buf(&mut inbox).await? == 0 {
            return Ok(None);
        }
    }
}

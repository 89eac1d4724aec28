//! Opening connections: by TCP, or through the network of a test.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Error as ClientError;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// A connection that is being opened.
pub type Dialling = BoxFuture<'static, Result<Box<dyn Stream>, Box<dyn Error + Send + Sync>>>;

/// Connects to the host and port of a URL.
pub trait Dial: Send + Sync {
    /// Opens a connection, without TLS.
    fn dial(&self, uri: Uri) -> Dialling;
}

/// A connected stream of bytes.
pub trait Stream: Read + Write + Send + Unpin {}

impl<S: Read + Write + Send + Unpin> Stream for S {}

impl<R> Dial for HttpConnector<R>
where
    R: Clone + Send + Sync,
    Self: Service<Uri, Response = TokioIo<TcpStream>>,
    <Self as Service<Uri>>::Error: Error + Send + Sync + 'static,
    <Self as Service<Uri>>::Future: Send + 'static,
{
    fn dial(&self, uri: Uri) -> Dialling {
        // Without `poll_ready`: this service is always ready.
        let connecting = self.clone().call(uri);
        async move { Ok(Box::new(connecting.await?) as Box<dyn Stream>) }.boxed()
    }
}

/// Dials for a hyper client.
#[derive(Clone)]
pub(super) struct Dialler(pub(super) Arc<dyn Dial>);

impl Service<Uri> for Dialler {
    type Response = Dialled;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Dialled, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialling = self.0.dial(uri);
        async move { Ok(Dialled { stream: dialling.await?, carried: Carried::default() }) }.boxed()
    }
}

/// Whether a connection has carried a response before. If so, its sudden end may only mean that
/// it was idle for too long.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried(Arc<AtomicBool>);

impl Carried {
    /// The record of the connection that `error` occurred on, if there was one.
    pub(super) fn by(error: &ClientError) -> Option<Self> {
        let mut extras = Extensions::new();
        error.connect_info()?.get_extras(&mut extras);
        extras.remove()
    }

    pub(super) fn note_answer(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_answered(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that attaches its [`Carried`] record to responses and errors.
pub(super) struct Dialled {
    stream: Box<dyn Stream>,
    carried: Carried,
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.carried.clone())
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
